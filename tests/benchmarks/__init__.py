"""How fast sapd is, as ratios of processor time: each row against a peer, in turn, in one run.

`python -m tests.benchmarks [FOLDER [PART ...]]` makes its logs in FOLDER (default: here; 2 GB) and
prints a table in Markdown: the median and the worst of the pairs. Parts are the functions that
`__main__` names (default: all). The peers are Debian's grep, mawk, tail, logtail2 (package logtail)
and makemap (sendmail-bin). The folder should lie on ext4 or XFS.

`day` times nothing: it shows what each setting buys and costs.
"""
