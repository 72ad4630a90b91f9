"""`agentctl doctor`: what is wrong with this device, and what to do about it.

command     agentctl's part: finds the configuration, starts the examination as the agent's own user, shows findings
examine     the examination, a child process: wires probes to rules, and says each finding as soon as it has it
probes/     look at the world and judge nothing; each gives the facts that one room of rules wants
rules/      pure judgement over those facts; each finding that is not fine carries what to do
findings    what a finding is
"""
