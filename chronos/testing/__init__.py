"""What an agent with managed cron is tested with; `import chronos` does not bring it along."""
