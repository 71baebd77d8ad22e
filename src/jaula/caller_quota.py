"""Finite resources of the server that callers share, and what the objects of each owner take. Pure.

Of connections and bytes of request bodies a caller may hold as much as is free. So one caller gets
at most a half, two get at most two thirds together, and a new caller always finds something free.
Only root may use the reserve, and root has no share: it can end the engine anyway.

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


class OwnedSizes:
    """The objects of each owner: their number, and the sum of their bytes."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[str, int]] = {}
        self._sums: dict[str, tuple[int, int]] = {}
        self.total = 0  # bytes of all owners

    def set(self, key: str, owner: str, size: int) -> None:
        """Count an object of ``size`` bytes, in place of what it was before."""
        self.drop(key)
        self._objects[key] = owner, size
        count, total = self._sums.get(owner, (0, 0))
        self._sums[owner] = count + 1, total + size
        self.total += size

    def drop(self, key: str) -> None:
        """Count an object no more; an unknown one is not an error."""
        if (former := self._objects.pop(key, None)) is None:
            return
        owner, size = former
        self.total -= size
        count, total = self._sums.pop(owner)
        if count > 1:
            self._sums[owner] = count - 1, total - size

    def count(self, owner: str) -> int:
        """Return how many objects an owner has."""
        return self._sums.get(owner, (0, 0))[0]

    def size(self, owner: str) -> int:
        """Return the bytes of the objects of an owner."""
        return self._sums.get(owner, (0, 0))[1]

    def size_of(self, key: str) -> int:
        """Return the bytes of an object, 0 for an unknown one."""
        return self._objects.get(key, ("", 0))[1]
