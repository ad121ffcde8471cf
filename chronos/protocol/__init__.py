"""The pure part of managed cron: values in, values and effects out, no I/O and no clock.

To be read in this order:

1. `chronos.jobs.job` and `due`: the record of a job, and when it must next be woken;
2. `draft`, `transitions`, `job_changes`, `wrong_clock`: every way in which a job may change;
3. `intents`, `flow_effects`, `flow`: how one change gets to the store and to NAS;
4. `follow_ups`, `reconciliation`: what is owed after that, and what a start owes;
5. `state`, `process_effects`, `process` and the parts of its turn: what a process does with all of these.
"""
