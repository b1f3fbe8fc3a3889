"""A Kubernetes API server in one process, in memory: what drivers, schedulers and kubectl use of one, and no more.

A request comes in through `http` or `local`; `resources` says what it means: `decoding` shapes the body, `gates` drop
fields, `strategies` and `validation` know the kinds, `store` keeps objects and history, `watching` tells of them.
`collector` works behind it. Not here: authentication, server-side apply, protobuf, conversion between versions,
compiled CEL, quotas, webhooks, eviction, other kinds than `catalog` lists.
"""

from dra_driver.sandbox.apiserver.collector import Collector
from dra_driver.sandbox.apiserver.gates import Gates
from dra_driver.sandbox.apiserver.local import LocalApi
from dra_driver.sandbox.apiserver.server import ApiServer
from dra_driver.sandbox.apiserver.store import Store

__all__ = ["ApiServer", "Collector", "Gates", "LocalApi", "Store"]
