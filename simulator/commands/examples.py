"""Commands to begin with, as the help shows them."""

EXAMPLES = """\
examples:
  python -m simulator run                                       a year of a shipped fleet
  python -m simulator run --jobs jobs.json                      a year of your own jobs
  python -m simulator run --jobs - --days 30 < jobs.json        read from the standard input
  python -m simulator run --jobs jobs.json --faults heavy --seeds 50 --json report.json
  python -m simulator sweep --jobs jobs.json --vary faults=light,heavy --seeds 500 --results sweep
  python -m simulator check --limit 20000                       every order of events, for a while"""
