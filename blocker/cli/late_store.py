"""A node's store, which may not be there yet: opened at its first use, and again until it opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocker.errors import BlockerError, SettingsError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocker.cli.context import Context
    from blocker.store.redis import Store


class LateStore:
    """The store of one node; also a `blocker.hits.counters.HitStore`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store: Store | None = None

    async def opened(self) -> Store:
        """The store.

        Raises:
            StoreUnavailable: It cannot be opened now.
            SettingsError: Its address is malformed.
        """
        if self._store is None:
            try:
                self._store = await self._context.open_store()
            except (StoreUnavailable, SettingsError):
                raise
            except BlockerError as error:
                raise StoreUnavailable(str(error)) from None
        return self._store

    async def close(self) -> None:
        """Close it if it was ever opened."""
        if self._store is not None:
            await self._store.close()

    async def flush_hits(self, node: str, boot: str, sequence: int, cells: Mapping[str, int]) -> None:
        """As `Store.flush_hits`."""
        await (await self.opened()).flush_hits(node, boot, sequence, cells)

    async def load_hits(self, node: str) -> Mapping[str, int]:
        """As `Store.load_hits`."""
        return await (await self.opened()).load_hits(node)

    async def folded_hits(self, node: str) -> Mapping[str, int]:
        """As `Store.folded_hits`."""
        return await (await self.opened()).folded_hits(node)
