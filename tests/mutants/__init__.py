"""The mutation list: the product broken on purpose, one way at a time, to see that the tests notice.

A promise is worth what its test is worth. `listed.py`, with the files that it names, says what is broken and which tests should notice; `make mutants`
(`python -m tests.mutants [NAME…]`) breaks each in a copy of the tree and shows the test that failed.
"""
