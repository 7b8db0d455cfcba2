"""What every answer holds: the keys, their types and units. The schemas that the daemon serves are made of these.

What must stay true: they say of an answer all that it holds, so that a test can hold the answers to them; where a part is
free form, its type says so.
"""
