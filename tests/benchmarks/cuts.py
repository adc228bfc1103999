"""What shortening a log costs."""

import json
import shutil
import time
from pathlib import Path

from tests.benchmarks import logs
from tests.benchmarks.sites import MEBI, Row, Rows, again, of_run, site_in
from tests.benchmarks.timing import Side, against


def cut(folder: Path) -> Rows:
    site = site_in(folder)
    now = time.time()
    logs.write(site.log, 130 * MEBI, 0.1, now - 86400, now)
    with site.log.open("rb") as log:
        count = sum(1 for _ in log)
    keep = count * 100 // 130
    settings = f"keep_lines = {keep}\ncut_above = {{}}"
    site.configure(log_settings=settings.format(count + 1000))
    site.run()
    assert json.loads(site.state.read_text())["logs"][str(site.log)]["lines"] == count
    site.configure(log_settings=settings.format(count - 1))
    put_back, original = again(site), folder / "original"
    shutil.copyfile(site.log, original)

    def before() -> None:
        put_back()
        shutil.copyfile(original, site.log)

    end = folder / "end"
    recipe = f"tail -n {keep} {site.log} > {end}; cp {end} {site.log}"
    result = against(of_run(site, before), Side(["sh", "-c", recipe], before), 7)
    yield Row("cut of 130 MB to 100 MB", "`tail > tmp; cp tmp log`", 0.35, result)
