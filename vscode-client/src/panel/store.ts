// Everything that the panel shows, in one place, changed only by messages of the host's and by what the user opens.
//
// Invariant: a change asks for one drawing with the next animation frame, however many changes there are.

import type { Attachment, ChecklistItem, Folder, GateCard, ModelPage, Page, SessionInfo, ToPanel } from './messages';
import { Log } from './state';

/** A message that was sent and that the server has not confirmed yet. */
export interface Sending {
  id: number;
  text: string;
}

/** Something that the host said outside of any session's updates. */
export interface Aside {
  id: number;
  severity: 'info' | 'warning' | 'error';
  text: string;
}

const MOST_ASIDES = 3;

export class Store {
  page: Page = 'chat';
  log = new Log();
  epoch = 0;
  sessionId: string | undefined;
  /** A session is in view, or it is known that none is. */
  opened = false;
  more = false;
  loadingOlder = false;
  cards = new Map<string, GateCard>();
  checklist: ChecklistItem[] = [];
  /** Everything that the checklist asks for is there. */
  ready = false;
  models: ModelPage | undefined;
  sessions: SessionInfo[] | undefined;
  query = '';
  sending: Sending[] = [];
  asides: Aside[] = [];
  history: string[] = [];
  offered: Attachment[] = [];
  model: string | undefined;
  folders: Folder[] = [];
  /** Called with what the composer has to deal with. */
  onCompose:
    ((message: Extract<ToPanel, { type: 'attach' | 'focus' | 'suggest' | 'files' | 'sent' }>) => void) | undefined;
  private waiting: ToPanel[] = [];
  private asked = false;
  private numbers = 0;

  constructor(private readonly draw: () => void) {}

  /** Ask for a drawing with the next frame; a hidden page has no frames, so there it comes by a timer. */
  changed(): void {
    if (this.asked) return;
    this.asked = true;
    const work = (): void => {
      this.asked = false;
      for (const message of this.waiting.splice(0)) this.take(message);
      this.draw();
    };
    if (document.hidden) setTimeout(work, 100);
    else requestAnimationFrame(work);
  }

  receive(message: ToPanel): void {
    this.waiting.push(message);
    this.changed();
  }

  show(page: Page): void {
    this.page = page;
    this.changed();
  }

  aside(severity: Aside['severity'], text: string): void {
    // The same sentence again is the same aside; old ones make room.
    const others = this.asides.filter((one) => one.text !== text);
    this.asides = [...others, { id: ++this.numbers, severity, text }].slice(-MOST_ASIDES);
    this.changed();
  }

  dismiss(id: number): void {
    this.asides = this.asides.filter((one) => one.id !== id);
    this.changed();
  }

  private take(message: ToPanel): void {
    switch (message.type) {
      case 'opened':
        if (message.sessionId !== this.sessionId) {
          this.asides = [];
          // What is being sent to a session that is only just made belongs to it.
          if (this.sessionId !== undefined) this.sending = [];
          this.cards = new Map();
        }
        Object.assign(this, {
          epoch: message.epoch,
          sessionId: message.sessionId,
          more: message.more,
          opened: true,
          loadingOlder: false,
        });
        this.log = new Log();
        this.log.append(message.updates);
        this.log.know(message.running, message.queue);
        return;
      case 'updates':
        if (message.epoch === this.epoch) this.log.append(message.updates);
        return;
      case 'older':
        if (message.epoch !== this.epoch) return;
        this.log.prepend(message.updates);
        Object.assign(this, { more: message.more, loadingOlder: false });
        return;
      case 'page':
        this.page = message.page;
        return;
      case 'checklist':
        Object.assign(this, { checklist: message.items, ready: message.ready });
        return;
      case 'models':
        this.models = message.models;
        return;
      case 'sessions':
        if (message.query === this.query) this.sessions = message.sessions;
        return;
      case 'card':
        this.cards = new Map(this.cards).set(message.card.gateId, message.card);
        return;
      case 'offer':
        this.offered = message.attachments;
        return;
      case 'history':
        this.history = message.entries;
        return;
      case 'status':
        Object.assign(this, { model: message.model, folders: message.folders });
        return;
      case 'notice':
        this.aside(message.severity, message.text);
        return;
      case 'sent':
        this.sending = this.sending.filter((one) => one.id !== message.id);
        if (message.error === undefined) this.asides = [];
        this.onCompose?.(message);
        return;
      default:
        this.onCompose?.(message);
    }
  }
}
