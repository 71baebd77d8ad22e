"""The row of AppArmor: the label that the kernel reports, compared with the spec."""

from __future__ import annotations

import pytest

from jaula.features.verify.checks import lsm_labels
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Verdict
from jaula.security.lsm import detect
from jaula.spec.runtime_spec import Process, Spec

OWN = "jaula-default-0123456789ab"


@pytest.mark.parametrize(
    ("profile", "current", "modes", "verdict"),
    [
        (OWN, f"{OWN} (enforce)", {}, Verdict.HOLDS),
        (OWN, f"{OWN} (complain)", {}, Verdict.FAILS),
        (OWN, "jaula-default (enforce)", {}, Verdict.FAILS),
        (OWN, "jaula-default-ba9876543210 (enforce)", {}, Verdict.FAILS),
        ("jaula-default", "jaula-default (enforce)", {OWN: "enforce"}, Verdict.HOLDS),
        (OWN, f"{OWN}//&engine (enforce)", {}, Verdict.HOLDS),
        (OWN, f"{OWN}//&engine (mixed)", {OWN: "enforce", "engine": "complain"}, Verdict.HOLDS),
        (OWN, f"{OWN}//&engine (mixed)", {OWN: "complain", "engine": "enforce"}, Verdict.FAILS),
        (OWN, f"{OWN}//&engine (mixed)", {"engine": "enforce"}, Verdict.FAILS),
        (OWN, f"{OWN}//&engine (mixed)", None, Verdict.FAILS),
        (OWN, "other//&engine (mixed)", {OWN: "enforce"}, Verdict.FAILS),
        (OWN, f"{OWN}//child//&engine (mixed)", {f"{OWN}//child": "enforce"}, Verdict.HOLDS),
        (OWN, f"{OWN}//child//&engine (mixed)", {OWN: "enforce"}, Verdict.FAILS),
    ],
)
def test_the_profile_of_the_spec_is_in_force(
    monkeypatch: pytest.MonkeyPatch,
    profile: str,
    current: str,
    modes: dict[str, str] | None,
    verdict: Verdict,
) -> None:
    monkeypatch.setattr(detect, "selinux", lambda: False)
    monkeypatch.setattr(detect, "apparmor", lambda: True)
    monkeypatch.setattr(detect, "apparmor_profiles", lambda: modes)
    monkeypatch.setattr(AuditedContainer, "read", lambda _self, _name: f"{current}\n")
    spec = Spec(process=Process(cwd="/", apparmor_profile=profile))
    (row,) = lsm_labels.check(AuditedContainer({"State": {"Pid": 1}, "HostConfig": {}}, spec))
    assert row.verdict is verdict
