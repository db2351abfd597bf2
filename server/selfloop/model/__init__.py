"""The room that calls models: the only place where litellm is spoken, and where every call is paid for in advance.

    client.py        one call, whole: reserve, ask, retry, assemble, settle
    budget.py        tokens, money, seconds, iterations, shared downwards
    request.py       what is sent, in the dialect that the endpoint speaks
    endpoints.py     where a model is, and which key belongs there
    provider.py      a request goes to litellm, a stream of chunks comes back
    guards.py        litellm, imported behind guards
    events.py        bytes of a body → chunks
    assembly.py      chunks → text, thought, tool calls, usage
    textprotocol.py  tools by text, for models that cannot call them
    failures.py      what went wrong, as one plain sentence
    catalogue.py     which models an endpoint has

Nothing here imports litellm, openai or httpx at the top: together they cost seconds, and an editor is waiting.
"""
