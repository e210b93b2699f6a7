from pricing.anomalies import Stream


class Panel:
    def __init__(self, f, a):
        self.f, self.a, self.s = f, a, {}

    def update(self, day, values):
        return {n: self.s.setdefault(n, Stream(self.f, self.a)).update(day, v) for n, v in values.items()}

    def state(self):
        return {"f": self.f, "s": {n: x.state() for n, x in self.s.items()}}

    @classmethod
    def from_state(cls, d):
        o = cls(d["f"], None)
        o.s = {n: Stream.from_state(x) for n, x in d["s"].items()}
        return o
