"""What is in the kernel now, as far as an agent needs it to know whether the table is still its own.

Read by netlink because nft 1.0.6 lists no rule without fetching every map element first: 130 ms with 20,000
elements, against 3 ms.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import msgspec
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETRULE, nft_rule_msg
from pyroute2.nftables.main import NFTables

from nodeagent.capture.ruleset import OWNER_PREFIX, TABLE, Layout, rules_of

NFPROTO_IPV4 = 2

Judgement = Literal["ours", "altered", "missing", "superseded"]


class ObservedTable(msgspec.Struct, frozen=True):
    """The table `ip svcmesh` as it is now: the number of rules in each chain."""

    rules: Mapping[str, int]

    @property
    def owner(self) -> str:
        """The name of the owner's chain; empty if there is none."""
        return next((name for name in self.rules if name.startswith(OWNER_PREFIX)), "")


def read_table() -> ObservedTable | None:
    """Return the table, or None if there is none. Blocks for a few milliseconds.

    Raises:
        OSError: netlink refused.
    """
    tables = NFTables(nfgen_family=NFPROTO_IPV4)
    try:
        chains = [
            chain.get_attr("NFTA_CHAIN_NAME")
            for chain in tables.get_chains()
            if chain.get_attr("NFTA_CHAIN_TABLE") == TABLE and chain["nfgen_family"] == NFPROTO_IPV4
        ]
        wanted = nft_rule_msg()
        wanted["attrs"] = [("NFTA_RULE_TABLE", TABLE)]
        rules = Counter(
            rule.get_attr("NFTA_RULE_CHAIN") for rule in tables.request_get(wanted, NFT_MSG_GETRULE)
        )
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return None
        raise OSError(error.code, str(error)) from error
    finally:
        tables.close()
    return ObservedTable({name: rules[name] for name in chains}) if chains else None


def judge(table: ObservedTable | None, layout: Layout) -> Judgement:
    """Say what has happened to the table that an agent with this layout made."""
    if table is None:
        return "missing"
    if table.owner and table.owner != layout.owner:
        return "superseded"
    return "ours" if table.rules == rules_of(layout) else "altered"
