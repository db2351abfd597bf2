// Which of a session's updates belong to one turn, and which text in them is new.
//
// Invariant: each update is told once, also where the worker died in between and its updates came again.

import type { SessionPromptResult, State, Update, UpdateEnvelope } from './protocol';

/** Picks the updates of one turn out of its session's stream. */
export class TurnFilter {
  private active: boolean;
  private seq = 0;

  constructor(
    private readonly turnId: string,
    delivery: SessionPromptResult['delivery'],
  ) {
    // A steering goes into the turn that runs.
    this.active = delivery === 'steer';
  }

  /** Return what an envelope means to the turn: an update of it, its end, or nothing. */
  take(envelope: UpdateEnvelope): { update?: Update; end?: State } {
    if (envelope.seq <= this.seq) return {};
    this.seq = envelope.seq;
    const { update } = envelope;
    if (update.type !== 'state') return this.active ? { update } : {};
    if (update.state === 'running') {
      this.active ||= update.turnId === this.turnId;
      return {};
    }
    const ours = this.active || update.turnId === this.turnId;
    return ours ? { end: update } : {};
  }
}

/** Turns the updates of messages into the text that is new: what came in chunks is not told again as a whole. */
export class Prose {
  private readonly shown = new Map<string, number>();
  private last: string | undefined;

  /** Return what is to be shown now of an update; the empty text: nothing. */
  take(update: Update): string {
    if (update.type === 'messageChunk') return this.piece(update.messageId, update.text);
    if (update.type !== 'message' || update.role !== 'assistant') return '';
    const rest = update.text.slice(this.shown.get(update.messageId) ?? 0);
    return this.piece(update.messageId, rest);
  }

  private piece(messageId: string, text: string): string {
    if (text === '') return '';
    const gap = this.last !== undefined && this.last !== messageId ? '\n\n' : '';
    this.last = messageId;
    this.shown.set(messageId, (this.shown.get(messageId) ?? 0) + text.length);
    return gap + text;
  }
}
