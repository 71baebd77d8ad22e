"""A finite resource of the server (connections, bytes of request bodies) that callers share. Pure.

A caller may hold as much as is free. So one caller gets at most a half, two get at most two thirds
together, and a new caller always finds something free. Only root may use the reserve, and root has
no share: it can end the engine anyway.

Source of the rule: Choudhury and Hahne, 'Dynamic queue length thresholds for shared-memory packet
switches' (1998), with alpha = 1.
"""

from __future__ import annotations


class CallerQuota:
    """An amount, and what each caller holds of it."""

    def __init__(self, total: int, reserve: int) -> None:
        """Divide ``total``, of which ``reserve`` is for root."""
        self._total = total
        self._reserve = reserve
        self._used = 0
        self._held: dict[str, int] = {}

    def take(self, caller: str, amount: int, *, root: bool) -> bool:
        """Give ``amount`` to a caller; return False, and give nothing, if that is too much."""
        held, used = self._held.get(caller, 0) + amount, self._used + amount
        allowed = used <= self._total if root else held <= self._total - self._reserve - used
        if allowed:
            self._held[caller], self._used = held, used
        return allowed

    def available(self, caller: str) -> int:
        """Return the largest amount that a caller without the rights of root can take now."""
        return max(0, (self._total - self._reserve - self._used - self._held.get(caller, 0)) // 2)

    def give_back(self, caller: str, amount: int) -> None:
        """Return an amount that the caller has taken."""
        self._used -= amount
        held = self._held.pop(caller, 0) - amount
        if held:
            self._held[caller] = held


class CallerShare:
    """Share of a quota that one caller may hold."""

    def __init__(self, quota: CallerQuota, caller: str) -> None:
        self._quota = quota
        self._caller = caller

    def take(self, amount: int) -> bool:
        """Take an amount; return False, and take nothing, if that is too much."""
        return self._quota.take(self._caller, amount, root=False)

    def give_back(self, amount: int) -> None:
        """Return an amount that was taken."""
        self._quota.give_back(self._caller, amount)
