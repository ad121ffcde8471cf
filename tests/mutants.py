"""placeholder"""
Mutant=agent_of=follow_up_of=None
