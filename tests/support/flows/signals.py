"""How signals reach the processes that tests start."""

# Before a command: under nohup, or as a shell's background job, processes are started deaf to some signals.
HEARING = ("env", "--default-signal=TERM,HUP,INT")
