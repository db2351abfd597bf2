"""The baseline: a bare pygls server with one custom request, as its documentation would have it."""

from pygls.lsp.server import LanguageServer

server = LanguageServer("bare", "1")


@server.feature("bare/tiny")
def tiny(params):
    return {"sessions": []}


if __name__ == "__main__":
    server.start_io()
