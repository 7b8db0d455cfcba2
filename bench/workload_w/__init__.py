"""The workload W: many fields go through one chain of waits and acts, on aglowd and on what people would use instead.

A floor, written by hand for this and nothing else, says what the chain costs at least; aglowd is measured as a daemon of
its own, with its configuration, and the peers each in an environment of their own. An HTTP service in another process
answers all of them alike and judges: what it was asked and told counts, not what a system says of itself.
`python -m bench.workload_w` runs it.
"""
