"""The commands: `aglowd` runs the daemon, `aglowctl` asks it. aglowctl talks to the control socket only."""
