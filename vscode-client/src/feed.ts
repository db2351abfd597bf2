// Brings the updates of the session in view to the panel: a page of the newest, older ones on demand, then live.
//
// Invariant: the panel gets each update once and in order, across a reload of the window, a dead worker and a server
// that was started anew. Nothing is sent before the panel has said that it is there.

import * as vscode from 'vscode';
import type { ToPanel } from './panel/messages';
import type { UpdateEnvelope } from './protocol';
import { RequestError, sentence, type Server } from './server';
import type { Sessions } from './sessions';
import { Stream } from './stream';

const FIRST_PAGE = 200;
const OLDER_PAGE = 500;
/** At most one message to the panel in this time: a frame at 60 Hz. */
const FRAME_MS = 16;

export class Feed implements vscode.Disposable {
  private epoch = 0;
  private stream: Stream | undefined;
  private sessionId: string | undefined;
  /** Updates that come while the first page is read. */
  private early: UpdateEnvelope[] = [];
  private batch: UpdateEnvelope[] = [];
  private timer: NodeJS.Timeout | undefined;
  private sentAt = 0;
  private resuming = false;
  private readonly subscriptions: vscode.Disposable[];

  /** @param send hands a message to the panel; dropped while there is none. */
  constructor(
    private readonly server: Server,
    private readonly sessions: Sessions,
    private readonly send: (message: ToPanel) => void,
  ) {
    this.subscriptions = [
      server.onUpdate((envelope) => this.came(envelope)),
      server.onDidChangeState((state) => {
        if (state.kind !== 'running') return;
        // The same stream goes on in a new process; what was missed is sent again.
        if (this.stream !== undefined && this.sessionId === this.sessions.current) void this.resume();
        else void this.open();
      }),
    ];
  }

  /** Show the session in view from its newest page on. Never rejects. */
  async open(): Promise<void> {
    const epoch = ++this.epoch;
    this.stream = undefined;
    this.early = [];
    this.batch = [];
    const sessionId = (this.sessionId = this.sessions.current);
    const shown = { type: 'opened', epoch, ...(sessionId === undefined ? {} : { sessionId }) } as const;
    const state = this.server.state.kind;
    // The server is on its way, and with it the session: showing an empty one first would only flicker.
    if (sessionId !== undefined && (state === 'starting' || state === 'off')) return;
    if (sessionId === undefined || state !== 'running') {
      this.send({ ...shown, updates: [], more: false, running: false, queue: [] });
      return;
    }
    try {
      const [page, queue] = await Promise.all([
        this.server.request('selfloop/session/read', { sessionId, limit: FIRST_PAGE }),
        this.server.request('selfloop/session/queue', { sessionId }),
      ]);
      if (epoch !== this.epoch) return;
      this.stream = new Stream(page.updates.at(-1)?.seq ?? 0);
      this.send({
        ...shown,
        updates: page.updates,
        more: page.more,
        running: this.sessions.isRunning(sessionId),
        queue: queue.entries,
      });
      for (const envelope of this.early.splice(0)) this.came(envelope);
    } catch (error) {
      if (epoch !== this.epoch) return;
      this.send({ ...shown, updates: [], more: false, running: false, queue: [] });
      if (error instanceof RequestError && error.reason === 'unknownSession') void this.sessions.begin();
      else this.send({ type: 'notice', severity: 'error', text: sentence(error) });
    }
  }

  /** Send the page before an update. */
  async older(epoch: number, before: number): Promise<void> {
    if (epoch !== this.epoch || this.sessionId === undefined) return;
    const page = await this.server.request('selfloop/session/read', {
      sessionId: this.sessionId,
      before,
      limit: OLDER_PAGE,
    });
    if (epoch === this.epoch) this.send({ type: 'older', epoch, updates: page.updates, more: page.more });
  }

  private came(envelope: UpdateEnvelope): void {
    if (envelope.sessionId === undefined || envelope.sessionId !== this.sessionId) return;
    if (this.stream === undefined) {
      this.early.push(envelope);
      return;
    }
    const verdict = this.stream.take(envelope);
    if (verdict === 'take') this.push(envelope);
    else if (verdict === 'gap') void this.resume();
  }

  /** Have everything after what was seen sent again; it comes as updates, before the answer. Never rejects. */
  private async resume(): Promise<void> {
    if (this.resuming || this.stream === undefined || this.sessionId === undefined) return;
    this.resuming = true;
    const epoch = this.epoch;
    try {
      const { seq } = await this.server.request('selfloop/session/resume', {
        sessionId: this.sessionId,
        after: this.stream.seen,
      });
      // Fewer than were seen: the session's record is another one now.
      if (epoch === this.epoch && this.stream !== undefined && seq !== this.stream.seen) await this.open();
    } catch (error) {
      this.server.output.warn(`The session could not be resumed: ${sentence(error)}`);
      if (epoch === this.epoch) await this.open();
    } finally {
      this.resuming = false;
    }
  }

  /** Send now if the last message was long enough ago, else with the next frame. */
  private push(envelope: UpdateEnvelope): void {
    this.batch.push(envelope);
    if (this.timer !== undefined) return;
    const wait = this.sentAt + FRAME_MS - Date.now();
    if (wait <= 0) this.flush();
    else this.timer = setTimeout(() => this.flush(), wait);
  }

  private flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.sentAt = Date.now();
    if (this.batch.length > 0) this.send({ type: 'updates', epoch: this.epoch, updates: this.batch });
    this.batch = [];
  }

  dispose(): void {
    clearTimeout(this.timer);
    for (const one of this.subscriptions) one.dispose();
  }
}
