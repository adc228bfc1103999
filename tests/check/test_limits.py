"""Does `sapd check` know whether a sendmail.cf, as m4 makes it, heeds the limits?"""

from pathlib import Path

import pytest

from sapd import check, config, errors, maps
from sapd.check.finding import Finding, Note
from tests.folders import as_nobody
from tests.servers.namespace import Namespace
from tests.servers.sendmail import Sendmail
from tests.site import Site

pytestmark = pytest.mark.servers  # m4 and sendmail's rules for it make the configuration

EXAMPLES = Path(__file__).parents[2] / "examples" / "sendmail"
ACCESS, LIMITS = ((EXAMPLES / name).read_text() for name in ("access.mc", "limits.mc"))
SEPARATE = (EXAMPLES / "separate-map.mc").read_text()
SETTINGS = {
    "client_rate": ("ClientRate", "ratecontrol", "20"),
    "client_connections": ("ClientConn", "conncontrol", "5"),
    "greet_pause": ("GreetPause", "greet_pause", '"2s"'),
}
ALL = "".join(f"{setting} = {value}\n" for setting, (_, _, value) in SETTINGS.items())


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    """The folder etc/mail of a machine that has no sendmail.cf yet."""
    mail = tmp_path / "root/etc/mail"
    mail.mkdir(parents=True)
    return mail


def build(mail: Path, lines: str, site: Site) -> None:
    """Have m4 make the configuration; its map is the site's."""
    sendmail = Sendmail(Namespace([]), site.folder, lines)
    text = sendmail.build_configuration()
    map = str(site.database.with_suffix(""))
    (mail / "sendmail.cf").write_text(text.replace(str(sendmail.mail / "access"), map))


def limits(site: Site, mail: Path, policy: str = ALL) -> list[Finding]:
    """What is found about the limits."""
    site.configure(top=f"[policy]\n{policy}")
    root = str(mail.parents[1])
    return [
        finding
        for finding in check.findings(config.load(str(site.config)), root)
        if finding.text.startswith("policy.")
    ]


def test_all_are_heeded(site: Site, mail: Path) -> None:
    build(mail, ACCESS + LIMITS, site)
    assert limits(site, mail) == [
        Finding(0, "policy.client_rate: sendmail looks ClientRate up, and counts over 1m"),
        Finding(0, "policy.client_connections: sendmail looks ClientConn up"),
        Finding(0, "policy.greet_pause: sendmail looks GreetPause up"),
    ]


def test_the_usual_time_of_counting(site: Site, mail: Path) -> None:
    build(mail, ACCESS + LIMITS.partition("define(`confCONNECTION_RATE_WINDOW_SIZE'")[0], site)
    assert limits(site, mail)[0].text.endswith("and counts over 60s")


def test_what_is_not_configured_is_not_looked_for(site: Site, mail: Path) -> None:
    build(mail, ACCESS, site)
    assert limits(site, mail, "") == []


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_feature_that_is_missing(site: Site, mail: Path, setting: str) -> None:
    tag, feature, value = SETTINGS[setting]
    without = [line for line in LIMITS.splitlines() if not line.startswith(f"FEATURE(`{feature}'")]
    assert len(without) == len(LIMITS.splitlines()) - 1
    build(mail, ACCESS + "\n".join(without), site)
    (found,) = limits(site, mail, f"{setting} = {value}\n")
    assert found == Finding(
        errors.BAD_CONFIG,
        f"policy.{setting}: has no effect, for {mail}/sendmail.cf does not look {tag} up; "
        f"add FEATURE(`{feature}') to sendmail.mc, as sapd init --sendmail limits",
    )
    assert [finding.status for finding in limits(site, mail)].count(0) == 2


def test_no_feature_at_all(site: Site, mail: Path) -> None:
    build(mail, ACCESS, site)
    assert [finding.status for finding in limits(site, mail)] == [errors.BAD_CONFIG] * 3


def test_a_rule_that_is_commented_out(site: Site, mail: Path) -> None:
    build(mail, ACCESS + LIMITS, site)
    cf = mail / "sendmail.cf"
    rules = cf.read_text().splitlines()
    off = ["#" + rule if "ClientConn" in rule else rule for rule in rules]
    cf.write_text("\n".join(off))
    assert [finding.status for finding in limits(site, mail)] == [0, errors.BAD_CONFIG, 0]


def test_a_map_in_which_sendmail_does_not_look(site: Site, mail: Path) -> None:
    build(mail, SEPARATE + LIMITS, site)
    map = site.database.with_suffix("")
    cf = mail / "sendmail.cf"
    cf.write_text(cf.read_text().replace(f"> {map}\n", "> /etc/mail/access\n"))
    assert limits(site, mail, "client_rate = 20\n") == [
        Finding(
            errors.BAD_CONFIG,
            "policy.client_rate: has no effect, for sendmail looks ClientRate up in "
            f"/etc/mail/access.db only; remove it, or keep that one instead of {site.database}",
        )
    ]


def test_a_map_under_another_name_or_of_many(site: Site, mail: Path) -> None:
    build(mail, ACCESS + LIMITS, site)
    cf = mail / "sendmail.cf"
    text, map = cf.read_text(), site.database.with_suffix("")
    (site.folder / "link").symlink_to(site.folder)
    cf.write_text(text.replace(f"> {map}\n", f"> {site.folder}/link/access\n"))
    assert [finding.status for finding in limits(site, mail)] == [0, 0, 0]
    cf.write_text(text.replace(f"Kaccess hash -T<TMPF> {map}\n", "Kaccess sequence one two\n"))
    assert [finding.status for finding in limits(site, mail)] == [0, 0, 0]


@pytest.mark.parametrize("there", [False, True], ids=["missing", "not readable"])
def test_a_configuration_that_is_not_seen(site: Site, mail: Path, there: bool) -> None:
    if there:
        build(mail, ACCESS + LIMITS, site)
        (mail / "sendmail.cf").chmod(0)
    site.configure(top="[policy]\ngreet_pause = '2s'\n")
    settings = config.load(str(site.config))
    server, root = maps.chosen(settings.access), str(mail.parents[1])
    with as_nobody():
        found = list(server.findings(None, str(site.folder), root))
    assert [finding for finding in found if finding.text.startswith("policy.")] == [
        Note(
            f"policy.greet_pause: is not known to be heeded, because {mail}/sendmail.cf "
            "can't be read"
        )
    ]
