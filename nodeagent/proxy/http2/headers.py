"""Between header blocks of HTTP/2 and the mesh's heads (`nodeagent.proxy.message`), both ways.

A request becomes what HTTP/1 would have made of it: `Host` first, from :authority; X-Forwarded-For taken out;
the crumbs of Cookie joined; Expect dropped where there is nothing to wait with. Names stay in lower case; on
the way to HTTP/2 they become so, and what HTTP/2 does not have is left out. :scheme is `http` on the way out.

`length` is Content-Length where there is one; NO_BODY where the stream ends with the head, or where there can
be no body (1xx, 204, 304, answers to HEAD: DATA must be empty then); else UNTIL_CLOSE, for DATA is plain
bytes whose end is told. Who passes that on to HTTP/1 makes chunks of it. It is never CHUNKED; a head from
HTTP/1 that is goes out without its Transfer-Encoding, so its body has to go out without the chunks, as DATA.
Where HTTP/1 would wait for the end of the connection, or some servers for a length, `content-length: 0` is
added. Upgrade has no counterpart in HTTP/2 and is left out, but for WebSockets: they are a CONNECT with
`:protocol` there (RFC 8441), which becomes a GET with `upgrade` here (`nodeagent.proxy.websocket`).

A field that must never be indexed is a line without white space behind its colon. HTTP/1 does not mind, and
the encoder sees it.

What was worked out once is remembered: a whole block that does not refer to the dynamic table for all
connections, one that does, or that has a secret, for its own until the table changes (`memory`); a request's
but for its path, where that is not indexed; the order of the fields (`shapes`); single fields (`decoding`,
`literals`). A remembered block still adds to the table what it adds. All is bounded in bytes. Secrets are
remembered for their own connection only, so that nobody else's times tell whether they have guessed one.
"""

from __future__ import annotations

from nodeagent.proxy.http2.decoding import CompressionFault
from nodeagent.proxy.http2.head_decoder import HeaderDecoder, Shared, StreamFault
from nodeagent.proxy.http2.head_encoder import HeaderEncoder

__all__ = ["CompressionFault", "HeaderDecoder", "HeaderEncoder", "Shared", "StreamFault"]
