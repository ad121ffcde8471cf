"""Managed cron: the scheduler that an agent embeds when its machine sleeps between jobs."""
