
from dataclasses import dataclass, field
import math
from typing import Any
@dataclass(frozen=True)
class Alarms:
    spike: float=.3; level: float=.2; volatility: float=.15; trend: float=.1; stale: float=.1; divergence: float=.15
@dataclass(frozen=True)
class Verdict:
    period: int; value: float; score: float; flagged: bool; kind: str; check: str; p_value: float|None; expected: float; change: float; sigmas: float; onset: int; evidence: dict; undone: float|None
class Stream:
    def __init__(self, frequency, alarms): self.s=dict(f=frequency, v=None, m=.01)
    def update(self, day, value):
        s=self.s; r=math.log(value/s['v']) if s['v'] else 0.; z=abs(r)/(s['m']*1.25) if s['v'] else 0; e=s['v'] or value
        s['m']=.95*s['m']+.05*min(abs(r),4*s['m']); s['v']=value
        return Verdict(day,value,z/6,z>6,'market' if z>6 else '','spike' if z>6 else '',.0,e,r,z,day,{},None)
    def state(self): return dict(self.s)
    @classmethod
    def from_state(cls,d): o=cls('D',None); o.s=dict(d); return o
