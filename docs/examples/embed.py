"""An agent with managed cron, for an ASGI server to serve."""

from my_agent import access_token, run_job

from chronos import AsyncNasClient, AsyncScheduler, FireEndpoint, FireVerifier, JsonFileStore, RunContext


async def run(context: RunContext) -> None:
    """Run a job; an exception makes the run a failed one."""
    await run_job(context.job_id)


portal, me = "https://portal.example", "https://agent.example"
nas = AsyncNasClient(portal, token_provider=access_token, callback_url=me)
scheduler = AsyncScheduler(JsonFileStore("jobs.json"), nas, run)
verifier = FireVerifier("agent:inst-1", issuer=portal, jwks_url=f"{portal}/jwks.json")
app = FireEndpoint(scheduler, verifier)
