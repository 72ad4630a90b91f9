"""`agentctl doctor`: what is wrong with this device, and what to do about it.

command     agentctl's part: reads the configuration, starts the examination as the agent's own user, shows findings
examine     the examination, a child process: runs the checks
checks      the checks, in two lists; each asks a probe for facts and lets a rule judge them
probes/     gather facts, and judge nothing
rules/      judge facts, pure; each finding that is not fine says what to do
findings    what a finding is
"""
