"""What parsers do with what nobody should send them: only the documented errors come out, in bounded time and memory."""
