"""What is still usual for a list: limits of the guards, from the settings and from the list's own source."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """What is still usual for a list.

    Attributes:
        max_growth: New share of the rules before above which growth needs approval; 1 is twice as many.
        max_shrink: Lost share of the rules before above which it needs approval.
        floor: Changes of at most so many rules are never growth or shrinking.
        max_first: Rules of a first version above which it needs approval.
        whole_host_paths: Listed pages on a host from which a rule for all of it needs approval.
        exempt: Hosts that a person has decided may be blocked as a whole.
    """

    max_growth: float = 1.0
    max_shrink: float = 0.3
    floor: int = 1000
    max_first: int = 5_000_000
    whole_host_paths: int = 10
    exempt: frozenset[str] = frozenset()


class SourceGuards(BaseModel):
    """Limits of one list, where they differ from those of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    max_growth: float | None = Field(None, ge=0, description="See settings.")
    max_shrink: float | None = Field(None, ge=0, le=1, description="See settings.")
    floor: int | None = Field(None, ge=0, description="See settings.")
    max_first: int | None = Field(None, ge=0, description="See settings.")
    whole_host_paths: int | None = Field(None, ge=1, description="See settings.")
    exempt: frozenset[str] = Field(
        frozenset(), description="Hosts that may be blocked as a whole though popular, or though public suffixes."
    )

    def over(self, defaults: GuardLimits) -> GuardLimits:
        """The defaults, with what is given here in their place."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return replace(defaults, **given)
