"""What aglowd costs: commits and decisions a second, latency, memory and idle CPU of many waiting steps.

The real store, reactor, effects engine and watchers run here; only the step, the deed and the outside world are toys,
so that the figures are those of the machinery. `make bench` runs it and writes bench/results.json.
"""
