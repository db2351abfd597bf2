// What the panel shows of a session, derived from its updates and from nothing else.
//
// Invariant: `reduce` is a pure function: the same updates give the same state, however they were cut into batches, and
// an update whose `seq` was seen before changes nothing. An item that did not change stays the same object, by which
// the panel knows what to draw anew.

import type {
  FileStat,
  GateInfo,
  PlanEntry,
  QueueEntry,
  State as TurnState,
  ToolCallUpdate,
  UpdateEnvelope,
  UsageInfo,
  UsageUpdate,
} from '../protocol';

export type StopReason = NonNullable<TurnState['stopReason']>;

/** One thing in the timeline. `key` lasts as long as the thing does. */
export type Item =
  | { kind: 'user'; key: string; messageId: string; text: string }
  | { kind: 'assistant'; key: string; messageId: string; text: string; status: 'streaming' | 'done' | 'interrupted' }
  | { kind: 'thought'; key: string; text: string; live: boolean }
  | { kind: 'tool'; key: string; call: ToolCallUpdate; stopped: boolean }
  | { kind: 'task'; key: string; number: number; outputDir: string }
  | { kind: 'notice'; key: string; severity: 'info' | 'warning' | 'error'; text: string }
  | { kind: 'gate'; key: string; gate: GateInfo }
  | { kind: 'stop'; key: string; reason: StopReason };

/** A session as the panel shows it. */
export interface View {
  items: readonly Item[];
  /** The oldest and the newest `seq` that went into it; 0: none. */
  first: number;
  last: number;
  running: boolean;
  /** Whether an update has told if a turn runs. */
  told: boolean;
  /** The turn that runs or ran last. */
  turnId: string | undefined;
  /** When the running turn began, in milliseconds of the server's clock. */
  since: number;
  plan: readonly PlanEntry[];
  changes: readonly FileStat[];
  queue: readonly QueueEntry[];
  usage: UsageUpdate | undefined;
  spent: UsageInfo | undefined;
}

export const EMPTY: View = {
  items: [],
  first: 0,
  last: 0,
  running: false,
  told: false,
  turnId: undefined,
  since: 0,
  plan: [],
  changes: [],
  queue: [],
  usage: undefined,
  spent: undefined,
};

/** Why a turn stopped, in words; nothing for the usual end. */
export const STOPPED: Record<StopReason, string> = {
  end_turn: '',
  max_tokens: 'The answer reached the most tokens that one answer may have. Say “go on” to continue.',
  budget: 'The turn’s budget is used up. What was done so far is kept.',
  stuck: 'The agent was going round in circles, so the turn was ended. What was done so far is kept.',
  cancelled: 'Stopped. What was done so far is kept.',
  error: 'The turn ended with an error. What was done so far is kept.',
};

/** Return the view with more updates in it, in order of `seq`; those that were seen before are dropped. */
export function reduce(view: View, envelopes: readonly UpdateEnvelope[]): View {
  const draft = new Draft(view);
  for (const envelope of envelopes) {
    if (envelope.seq > draft.view.last) draft.take(envelope);
  }
  return draft.view;
}

/** Take the queue as the server tells it when asked, for a page of updates that does not reach back to it. */
export function withQueue(view: View, queue: readonly QueueEntry[]): View {
  const draft = new Draft(view);
  draft.requeue(queue);
  return draft.view;
}

/** A view that is being changed: its items are copied once for a batch. */
class Draft {
  view: View;
  private readonly items: Item[];
  private readonly places = new Map<string, number>();

  constructor(view: View) {
    this.items = [...view.items];
    this.items.forEach((item, place) => this.places.set(item.key, place));
    this.view = { ...view, items: this.items };
  }

  take(envelope: UpdateEnvelope): void {
    const { seq, update } = envelope;
    this.view.last = seq;
    if (this.view.first === 0) this.view.first = seq;
    switch (update.type) {
      case 'message':
        if (update.status === 'removed') return this.remove(`message:${update.messageId}`);
        if (update.role === 'user') return this.said(update.messageId, update.text);
        return this.answered(update.messageId, update.text, update.status === 'interrupted' ? 'interrupted' : 'done');
      case 'messageChunk': {
        const before = this.get(`message:${update.messageId}`);
        if (before?.kind === 'assistant' && before.status !== 'streaming') return;
        return this.answered(
          update.messageId,
          (before?.kind === 'assistant' ? before.text : '') + update.text,
          'streaming',
        );
      }
      case 'thought': {
        const key = `thought:${update.messageId ?? seq}`;
        const before = this.get(key);
        return this.put({
          kind: 'thought',
          key,
          text: (before?.kind === 'thought' ? before.text : '') + update.text,
          live: true,
        });
      }
      case 'toolCall':
        this.settleThoughts();
        return this.put({ kind: 'tool', key: `tool:${update.toolCallId}`, call: update, stopped: false });
      case 'plan':
        this.view.plan = update.entries;
        return;
      case 'state':
        return update.state === 'running' ? this.begun(envelope.at, update.turnId) : this.ended(seq, update);
      case 'changes':
        this.view.changes = update.files;
        return;
      case 'task':
        return this.put({
          kind: 'task',
          key: `task:${update.number}`,
          number: update.number,
          outputDir: update.outputDir,
        });
      case 'gate':
        return this.gate(update.gate);
      case 'usage':
        this.view.usage = update;
        return;
      case 'queue':
        return this.requeue(update.entries);
      case 'notice':
        return this.put({ kind: 'notice', key: `notice:${seq}`, severity: update.severity, text: update.text });
      default:
        return; // Generations are the status bar's.
    }
  }

  /** What leaves the queue was taken up now, so it stands here, not where it was said. */
  requeue(entries: readonly QueueEntry[]): void {
    const waits = new Set(entries.map((entry) => entry.messageId));
    for (const before of this.view.queue) {
      if (waits.has(before.messageId)) continue;
      const item = this.get(`message:${before.messageId}`);
      if (item !== undefined) this.moveToEnd(item);
    }
    this.view.queue = entries;
  }

  private said(messageId: string, text: string): void {
    this.put({ kind: 'user', key: `message:${messageId}`, messageId, text });
  }

  private answered(messageId: string, text: string, status: 'streaming' | 'done' | 'interrupted'): void {
    this.settleThoughts();
    if (text) this.put({ kind: 'assistant', key: `message:${messageId}`, messageId, text, status });
  }

  private begun(at: string, turnId: string | undefined): void {
    // A turn that goes on after its worker died keeps its plan.
    const same = turnId !== undefined && turnId === this.view.turnId;
    if (!same) Object.assign(this.view, { since: Date.parse(at), plan: [], changes: [] });
    Object.assign(this.view, { running: true, told: true, turnId });
  }

  private ended(seq: number, update: TurnState): void {
    this.view.running = false;
    this.view.told = true;
    this.view.spent = update.usage;
    this.settleThoughts();
    for (let place = this.items.length - 1; place >= 0; place--) {
      const item = this.items[place];
      if (item === undefined || item.kind === 'stop') break; // What lies before was settled then.
      if (item.kind === 'assistant' && item.status === 'streaming') this.put({ ...item, status: 'done' });
      if (item.kind === 'tool' && (item.call.status === 'running' || item.call.status === 'pending') && !item.stopped) {
        this.put({ ...item, stopped: true });
      }
    }
    const reason = update.stopReason ?? 'end_turn';
    if (reason !== 'end_turn') this.put({ kind: 'stop', key: `stop:${seq}`, reason });
  }

  /** A gate that lasts over turns is shown where it changed last in answer to the user, not where it was opened. */
  private gate(gate: GateInfo): void {
    const key = `gate:${gate.gateId}`;
    const place = this.places.get(key);
    const item: Item = { kind: 'gate', key, gate };
    const overtaken =
      place !== undefined && gate.state === 'open' && this.items.slice(place + 1).some((one) => one.kind === 'user');
    if (overtaken) this.moveToEnd(item);
    else this.put(item);
  }

  private settleThoughts(): void {
    for (let place = this.items.length - 1; place >= 0; place--) {
      const item = this.items[place];
      if (item?.kind !== 'thought') break;
      if (item.live) this.put({ ...item, live: false });
    }
  }

  private get(key: string): Item | undefined {
    const place = this.places.get(key);
    return place === undefined ? undefined : this.items[place];
  }

  private put(item: Item): void {
    const place = this.places.get(item.key);
    if (place === undefined) {
      this.places.set(item.key, this.items.length);
      this.items.push(item);
    } else {
      this.items[place] = item;
    }
  }

  private remove(key: string): void {
    const place = this.places.get(key);
    if (place === undefined) return;
    this.items.splice(place, 1);
    this.places.delete(key);
    for (const [other, at] of this.places) if (at > place) this.places.set(other, at - 1);
  }

  private moveToEnd(item: Item): void {
    this.remove(item.key);
    this.put(item);
  }
}

/** The updates of one session that the panel has, so that older ones can be put in front. */
export class Log {
  private updates: UpdateEnvelope[] = [];
  view: View = EMPTY;

  /** Take newer updates; returns whether anything changed. */
  append(envelopes: readonly UpdateEnvelope[]): boolean {
    const fresh = envelopes.filter((envelope) => envelope.seq > this.view.last);
    if (fresh.length === 0) return false;
    this.updates.push(...fresh);
    this.view = reduce(this.view, fresh);
    return true;
  }

  /** Take older updates: the view is derived anew, since a tool call or a message may span the seam. */
  prepend(envelopes: readonly UpdateEnvelope[]): void {
    const first = this.view.first || Infinity;
    const { queue, running, told, since } = this.view;
    this.updates = [...envelopes.filter((envelope) => envelope.seq < first), ...this.updates];
    const view = withQueue(reduce(EMPTY, this.updates), queue);
    // A page may begin in the middle of a turn: what was told from elsewhere holds.
    this.view = { ...view, running, told: told || view.told, since: since || view.since };
  }

  /** Take what is known from elsewhere: whether a turn runs, if no update has told, and what waits. */
  know(running: boolean, queue: readonly QueueEntry[]): void {
    const view = withQueue(this.view, queue);
    this.view = view.told ? view : { ...view, running };
  }
}
