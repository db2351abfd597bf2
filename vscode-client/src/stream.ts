// One session's numbered updates, as one window takes them: each once, in order, none left out.
//
// Invariant: pure; whoever holds it sends what `take` returns and asks for a replay where it says so.

import type { UpdateEnvelope } from './protocol';

/** What to do with an update: show it, forget it, or have everything after `seen` sent again. */
export type Verdict = 'take' | 'drop' | 'gap';

export class Stream {
  /** @param seen the newest `seq` that was shown; 0: none. */
  constructor(public seen: number) {}

  take(envelope: UpdateEnvelope): Verdict {
    if (envelope.seq <= this.seen) return 'drop';
    // A gap is asked for again as a whole, this one included, so that the order stays.
    if (envelope.seq > this.seen + 1) return 'gap';
    this.seen = envelope.seq;
    return 'take';
  }
}
