// @selfloop in VS Code's own chat view, and the language model that lets the view work without any sign-in.
//
// A chat thread is a session of ours: the first message makes one, each answer carries its id, and a follow-up goes to
// the same one. It stands in the panel's list like any other. What the agent wants to change waits as a proposal; the
// chat shows a button to review it, and decides nothing by itself.
//
// VS Code's chat view stays shut while no language model is there. So we bring one, and it really answers: a request to
// it runs the last message as a prompt in a session of its own, with what was said before in front of it, and streams
// the agent's text. There is no shorter way to the configured model that keeps the budget, the redaction and the record
// of the server's; a canned reply would be a toy. Such a session is deleted after its answer unless a proposal or a
// command waits in it. It says that it can call tools, because the view's agent mode, which is its default, offers no
// other model, not even to a participant; the tools that it calls are Selfloop's own, and never the editor's.
//
// Invariant: where an editor lacks these interfaces, nothing here is registered and all else works.

import * as vscode from 'vscode';
import { followTurn } from './follow';
import type { Gates } from './gates';
import type { AskResult, ContextItem, GateInfo, State, Update } from './protocol';
import { answer } from './command_gates';
import { RequestError, sentence, show, type Server } from './server';
import type { Sessions } from './sessions';
import { code, commandFacts, commandOf, escape, fenced } from './trust_card';
import { Prose } from './turn_filter';

const PARTICIPANT = 'selfloop.agent';
const VENDOR = 'selfloop';
const OPEN_SESSION = 'selfloop.participant.openSession';
const ANSWER = 'selfloop.participant.answer';
const REVIEW = 'selfloop.gate.show';
const WORDS: Record<string, string> = { explain: 'Explain', fix: 'Fix', test: 'Write a test for' };
/** What is not known of the model is what the server assumes too. */
const INPUT_TOKENS = 32_768;
const OUTPUT_TOKENS = 16_384;
/** The longest command that is decided in the chat view. */
const MOST_CHARACTERS = 240;

const ENDINGS: Record<NonNullable<State['stopReason']>, string> = {
  end_turn: '',
  max_tokens: 'The model’s answer was cut off at its longest; ask it to go on.',
  budget: 'The budget of the turn is used up; ask it to go on, or raise the budget in the settings.',
  stuck: 'The agent went round in circles, so the turn was ended; say it in other words.',
  cancelled: 'Stopped. What was done so far is kept in the session.',
  error: 'The turn ended with an error; the session in Selfloop’s panel says which.',
};

/** Register what the editor has interfaces for. */
export function registerParticipant(
  context: vscode.ExtensionContext,
  server: Server,
  sessions: Sessions,
  gates: Gates,
): vscode.Disposable {
  const subscriptions: vscode.Disposable[] = [
    vscode.commands.registerCommand(OPEN_SESSION, async (sessionId: string) => {
      sessions.open(sessionId);
      await vscode.commands.executeCommand('selfloop.panel.open');
    }),
    vscode.commands.registerCommand(ANSWER, (gateId: string, optionId: string) =>
      decide(gates, gateId, optionId).catch(show),
    ),
  ];
  // Forks of VS Code may have none of this, or only a part.
  const chat = (vscode as { chat?: typeof vscode.chat }).chat;
  const lm = (vscode as { lm?: typeof vscode.lm }).lm;
  if (typeof chat?.createChatParticipant === 'function') {
    const participant = chat.createChatParticipant(PARTICIPANT, (request, history, stream, token) =>
      new Answer(server, gates, stream, token).give(request, history),
    );
    const picture = (name: string): vscode.Uri => vscode.Uri.joinPath(context.extensionUri, 'media', name);
    participant.iconPath = { light: picture('selfloop-light.svg'), dark: picture('selfloop-dark.svg') };
    subscriptions.push(participant);
  }
  if (typeof lm?.registerLanguageModelChatProvider === 'function') {
    const provider = new Model(server);
    subscriptions.push(provider, lm.registerLanguageModelChatProvider(VENDOR, provider));
    // The view looks for models only when somebody asks for one.
    void lm.selectChatModels?.({ vendor: VENDOR }).then(undefined, (error: unknown) => {
      server.output.warn(`The editor's chat does not see Selfloop's model: ${sentence(error)}`);
    });
  }
  return vscode.Disposable.from(...subscriptions);
}

/** Answer a command from a button of the chat view, which stays there when the command is answered elsewhere. */
async function decide(gates: Gates, gateId: string, optionId: string): Promise<void> {
  const gate = gates.info(gateId);
  const option = gate?.options.find((one) => one.optionId === optionId);
  if (gate === undefined || option === undefined) {
    void vscode.window.showInformationMessage('This command was answered before, so nothing was changed.');
    return;
  }
  await answer(gates, gate, option);
}

/** One answer in the chat view. */
class Answer {
  private readonly prose = new Prose();
  private readonly begun = new Set<string>();
  private readonly asked = new Set<string>();
  private proposal: GateInfo | undefined;
  private plan = '';

  constructor(
    private readonly server: Server,
    private readonly gates: Gates,
    private readonly stream: vscode.ChatResponseStream,
    private readonly token: vscode.CancellationToken,
  ) {}

  async give(request: vscode.ChatRequest, { history }: vscode.ChatContext): Promise<vscode.ChatResult> {
    let sessionId = sessionOf(history);
    try {
      const context = contextOf(request);
      sessionId ??= await newSession(this.server, context);
      let end: State;
      try {
        end = await this.run(sessionId, request, context);
      } catch (error) {
        if (!(error instanceof RequestError) || error.reason !== 'unknownSession') throw error;
        // It was deleted in the panel meanwhile.
        sessionId = await newSession(this.server, context);
        end = await this.run(sessionId, request, context);
      }
      this.close(sessionId, end);
      return { metadata: { sessionId } };
    } catch (error) {
      if (this.server.state.kind === 'missing')
        this.stream.button({ title: 'Set Up Selfloop…', command: 'selfloop.setup.open' });
      return {
        errorDetails: { message: sentence(error) },
        ...(sessionId === undefined ? {} : { metadata: { sessionId } }),
      };
    }
  }

  private run(sessionId: string, request: vscode.ChatRequest, context: ContextItem[]): Promise<State> {
    const intent = request.command;
    const first = context[0];
    const send =
      intent !== undefined && first !== undefined
        ? () => this.server.execute<AskResult>('selfloop.ask', { ...ask(intent, request.prompt, first), sessionId })
        : () =>
            this.server.request('selfloop/session/prompt', { sessionId, text: words(intent, request.prompt), context });
    return followTurn(this.server, sessionId, send, (update) => this.show(update), this.token);
  }

  private show(update: Update): void {
    const text = this.prose.take(update);
    if (text) this.stream.markdown(text);
    switch (update.type) {
      case 'toolCall':
        if (update.status !== 'pending' && !this.begun.has(update.toolCallId)) {
          this.begun.add(update.toolCallId);
          this.stream.progress(update.title);
        }
        break;
      case 'plan': {
        const step = update.entries.find((one) => one.status === 'in_progress')?.text ?? '';
        if (step && step !== this.plan) this.stream.progress(step);
        this.plan = step;
        break;
      }
      case 'gate':
        this.gate(update.gate);
        break;
      case 'notice':
        if (update.severity !== 'info') this.stream.markdown(`\n\n*${escape(update.text)}*\n\n`);
        break;
      default:
        break;
    }
  }

  private gate(gate: GateInfo): void {
    if (gate.subject['type'] === 'changes') {
      this.proposal = gate.state === 'open' ? gate : undefined;
    } else if (gate.state === 'open' && !this.asked.has(gate.gateId)) {
      this.asked.add(gate.gateId);
      this.question(gate);
    }
  }

  /**
   * A command waits for the user's answer. One that the view shows exactly as it is can be answered here; a long one,
   * or one whose line breaks or blanks count, is looked at in full first, and can only be rejected from here.
   */
  private question(gate: GateInfo): void {
    const subject = commandOf(gate);
    if (subject === undefined) return;
    const exact = subject.shown.length <= MOST_CHARACTERS && !/\s{2}|[\n\t]/.test(subject.shown);
    const facts = escape(commandFacts(subject));
    const always = gate.options.find((option) => option.kind === 'allow_always')?.rule;
    const text = exact
      ? `The agent asks to run this, ${facts}:\n\n${code(subject.shown)}`
      : `The agent asks to run a command that is too long to be decided here, ${facts}:\n\n${fenced(subject.shown, 'sh')}`;
    const rule = exact && always !== undefined ? `\n\n*Always* would store: ${code(always)}` : '';
    this.stream.markdown(`\n\n${text}${rule}\n\n`);
    if (!exact) this.stream.button({ title: 'Show', command: REVIEW, arguments: [{ gateId: gate.gateId }] });
    for (const option of gate.options.filter((one) => exact || one.kind.startsWith('reject'))) {
      this.stream.button({ title: option.name, command: ANSWER, arguments: [gate.gateId, option.optionId] });
    }
  }

  private close(sessionId: string, end: State): void {
    const said = end.stopReason === undefined ? '' : ENDINGS[end.stopReason];
    if (said) this.stream.markdown(`\n\n*${said}*\n`);
    const proposal =
      this.proposal ?? this.gates.open.find((one) => one.sessionId === sessionId && one.subject['type'] === 'changes');
    if (proposal !== undefined) {
      this.stream.button({ title: 'Review the Proposal', command: REVIEW, arguments: [{ gateId: proposal.gateId }] });
    }
    // No text after the answer's own: the view folds away, as steps, all that stands before the last text.
    if (said) this.stream.button({ title: 'Open in Selfloop', command: OPEN_SESSION, arguments: [sessionId] });
  }
}

/** The model that VS Code's chat sees. */
class Model implements vscode.LanguageModelChatProvider, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeLanguageModelChatInformation = this.changed.event;
  private readonly subscription: vscode.Disposable;
  private known: string | null | undefined;

  constructor(private readonly server: Server) {
    this.subscription = server.onStatus((status) => {
      if (status.model === this.known) return;
      this.known = status.model;
      this.changed.fire();
    });
  }

  provideLanguageModelChatInformation(): vscode.LanguageModelChatInformation[] {
    const model = this.server.status?.model;
    // `isDefault` and `isUserSelectable` are not in the stable types; an editor that does not know them ignores them.
    const offered = {
      id: 'selfloop',
      name: 'Selfloop',
      family: 'selfloop',
      version: this.server.version,
      tooltip: model ? `The agent, on ${model}` : 'The agent; no model is chosen yet',
      ...(model ? { detail: model } : {}),
      maxInputTokens:
        vscode.workspace.getConfiguration('selfloop').get<number | null>('contextTokens', null) ?? INPUT_TOKENS,
      maxOutputTokens: OUTPUT_TOKENS,
      capabilities: { toolCalling: true, imageInput: false },
      isDefault: true,
      isUserSelectable: true,
    };
    return [offered];
  }

  async provideLanguageModelChatResponse(
    _model: vscode.LanguageModelChatInformation,
    messages: readonly vscode.LanguageModelChatRequestMessage[],
    _options: vscode.ProvideLanguageModelChatResponseOptions,
    progress: vscode.Progress<vscode.LanguageModelResponsePart>,
    token: vscode.CancellationToken,
  ): Promise<void> {
    const { sessionId } = await this.server.request('selfloop/session/new', {});
    const prose = new Prose();
    const waiting = new Set<string>();
    const report = (text: string): void => progress.report(new vscode.LanguageModelTextPart(text));
    const end = await followTurn(
      this.server,
      sessionId,
      () => this.server.request('selfloop/session/prompt', { sessionId, text: conversation(messages) }),
      (update) => {
        const text = prose.take(update);
        if (text) report(text);
        if (update.type !== 'gate') return;
        if (update.gate.state === 'open') waiting.add(update.gate.gateId);
        else waiting.delete(update.gate.gateId);
      },
      token,
    );
    if (waiting.size > 0) {
      report('\n\nWhat I would change waits for your decision in Selfloop’s view “Waiting for You”.');
    } else {
      this.server.request('selfloop/session/delete', { sessionId }).catch(show);
    }
    if (end.stopReason === 'error') throw new Error(ENDINGS.error);
  }

  provideTokenCount(
    _model: vscode.LanguageModelChatInformation,
    text: string | vscode.LanguageModelChatRequestMessage,
  ): Promise<number> {
    const whole = typeof text === 'string' ? text : textOf(text);
    return Promise.resolve(Math.ceil(whole.length / 4));
  }

  dispose(): void {
    this.subscription.dispose();
    this.changed.dispose();
  }
}

/** Return the session of a thread: the one that our last answer in it came from. */
function sessionOf(history: vscode.ChatContext['history']): string | undefined {
  const answers = history.filter(
    (turn): turn is vscode.ChatResponseTurn =>
      turn instanceof vscode.ChatResponseTurn && turn.participant === PARTICIPANT,
  );
  const ids = answers.map((turn) => (turn.result.metadata as { sessionId?: unknown } | undefined)?.sessionId);
  return ids.filter((id): id is string => typeof id === 'string').at(-1);
}

/** Make a session in the folder that the request is about. */
async function newSession(server: Server, context: readonly ContextItem[]): Promise<string> {
  const active = vscode.window.activeTextEditor?.document.uri;
  const about = context[0] === undefined ? active : vscode.Uri.parse(context[0].uri);
  const folder = about === undefined ? undefined : vscode.workspace.getWorkspaceFolder(about);
  const params = folder === undefined ? {} : { workspaceFolder: folder.uri.toString() };
  return (await server.request('selfloop/session/new', params)).sessionId;
}

/** Return what the user attached; for a command without any, what is open and selected. */
function contextOf(request: vscode.ChatRequest): ContextItem[] {
  const items = request.references.flatMap(({ value }): ContextItem[] => {
    if (value instanceof vscode.Uri) return value.scheme === 'file' ? [{ uri: value.toString() }] : [];
    if (value instanceof vscode.Location) return value.uri.scheme === 'file' ? [place(value.uri, value.range)] : [];
    return typeof value === 'string' ? [{ uri: 'untitled:chat', text: value }] : [];
  });
  const editor = vscode.window.activeTextEditor;
  if (items.length > 0 || request.command === undefined || editor?.document.uri.scheme !== 'file') return items;
  return [editor.selection.isEmpty ? place(editor.document.uri) : place(editor.document.uri, editor.selection)];
}

function place(uri: vscode.Uri, range?: vscode.Range): ContextItem {
  const diagnostics = vscode.languages
    .getDiagnostics(uri)
    .filter((one) => one.source !== 'selfloop' && (range === undefined || range.intersection(one.range) !== undefined))
    .slice(0, 50)
    .map((one) => ({
      message: one.message,
      // A vscode.Range would travel as an array.
      range: { start: one.range.start, end: one.range.end },
      // VS Code counts from zero, LSP from one.
      severity: one.severity + 1,
      ...(one.source === undefined ? {} : { source: one.source }),
    }));
  return {
    uri: uri.toString(),
    ...(range === undefined ? {} : { range: { start: range.start, end: range.end } }),
    ...(diagnostics.length > 0 ? { diagnostics } : {}),
  };
}

/** Return the argument of `selfloop.ask`: the server's own words for the intent, or the user's. */
function ask(intent: string, prompt: string, about: ContextItem): object {
  return { ...about, ...(prompt.trim() ? { prompt: words(intent, prompt) } : { intent }) };
}

function words(intent: string | undefined, prompt: string): string {
  if (intent === undefined) return prompt;
  return prompt.trim() ? `${WORDS[intent] ?? intent}: ${prompt}` : `${WORDS[intent] ?? intent} this.`;
}

/** Return a conversation as one prompt: the last message, with what was said before in front of it. */
function conversation(messages: readonly vscode.LanguageModelChatRequestMessage[]): string {
  const said = messages.map((one) => ({
    who: one.role === vscode.LanguageModelChatMessageRole.User ? 'User' : 'Assistant',
    text: textOf(one),
  }));
  const last = said.pop()?.text ?? '';
  if (said.length === 0) return last;
  return `${said.map((one) => `${one.who}: ${one.text}`).join('\n\n')}\n\nAnswer this last message:\n\n${last}`;
}

function textOf(message: vscode.LanguageModelChatRequestMessage): string {
  return message.content.map((part) => (part instanceof vscode.LanguageModelTextPart ? part.value : '')).join('');
}
