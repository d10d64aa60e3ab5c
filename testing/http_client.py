"""An HTTP client for servers on this machine.

`httpx.get` makes a client, and with it a TLS context, for every call: 30 ms of CPU, which adds up where a test polls.
Connections are not kept, because tests restart the servers behind them.
"""

import httpx

http = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=30)
