"""Schedulers of one's own: ordinary Python, blocking or `async`, driven in the simulated world.

An agent is made by a factory, which is given what it names of these, by keyword:

| `store` | `environment.Store`: the jobs, which outlive the process |
| `nas` | `environment.Nas`: arms and disarms jobs |
| `now()` | what the machine's clock shows, an aware datetime in UTC |
| `run(job)` | runs what was claimed of a job; returns whether it succeeded |
| `sleep(seconds)` | waits |
| `spawn(function, *arguments)` | begins something else in the same process, as a thread would |
| `stopped()` | whether the agent is told to run no jobs |

It returns an object with `start()`, called once a process is up; `on_jobs_changed()`, called when somebody
has changed the store, who is to be told that NAS does not agree yet when it returns False; and
`fire(job_id, fire_at)`, which returns the HTTP status of the answer. It may have
`pending()`, which tells the host whether it is at work (without it, it is for as long as anything goes on),
and `run_now(job_id)`, which somebody calls who wants a run by hand.

Each call into the environment is a point at which time passes, something else of the same process goes on,
or the process dies. What an agent raises is its crash.
"""
