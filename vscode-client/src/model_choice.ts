// The model page's data: which endpoints there are, what they offer, which model is used, and how a test call went.
//
// Invariant: the server lists, selects and tests; here is only remembered, without keys, which endpoints the user has
// added and which model they chose, so that the page can say so where something else outranks it.

import * as vscode from 'vscode';
import type { Keys } from './keys';
import { KNOWN_ENDPOINTS, baseUrlOf, isLocal, originOf, outranked, warnings, type Endpoint } from './models';
import { OFFLINE_MODEL } from './offline';
import type { ModelInfo } from './protocol';
import { RequestError, sentence, type Server } from './server';
import type { EndpointRow, ModelPage, ModelRow } from './setup_page';
import { unlinked } from './trust_card';

const ADDED = 'endpoints';
const CHOSEN = 'model.chosen';
const MOST_MODELS = 500;

/** What the user chose last. */
interface Choice {
  model: string;
  baseUrl?: string;
}

/** What is known of an endpoint at the moment. */
interface Listed extends Endpoint {
  models: readonly ModelInfo[];
  problem?: string;
}

/** Lists, chooses and tests models. */
export class ModelChoice implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  /** The page has changed. */
  readonly onDidChange = this.changed.event;
  private searches = 0;
  private listed: Listed[] = [];
  private test: ModelPage['test'];

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly server: Server,
    private readonly keys: Keys,
  ) {}

  /** The name of the model in use; undefined: none, or not known yet. */
  get current(): string | undefined {
    return this.server.status?.model ?? undefined;
  }

  /** How the last test call went; undefined: none since the model was chosen. */
  get tested(): ModelPage['test'] {
    return this.test;
  }

  /** Say so if the server uses another model than the user chose. */
  get notice(): string | undefined {
    const chosen = this.context.globalState.get<Choice>(CHOSEN);
    const current = this.current;
    if (chosen === undefined || current === undefined) return undefined;
    const coming = outranked(chosen.model, chosen.baseUrl, outranking());
    if (current === chosen.model || coming === undefined) return coming;
    return `${current} is used, not ${chosen.model} that you chose: ${coming.replace(', and is used again instead', ', which comes before')}`;
  }

  /** Return what the page shows. */
  page(): ModelPage {
    const current = this.current;
    const endpoints = this.listed.map((one) => this.row(one));
    return {
      searching: this.searches > 0,
      ...(current === undefined ? {} : { current }),
      ...(this.notice === undefined ? {} : { notice: this.notice }),
      endpoints,
      ...(this.test === undefined ? {} : { test: this.test }),
    };
  }

  /** Look for endpoints and list their models; never rejects: each endpoint's row says what went wrong. */
  async search(): Promise<void> {
    if (this.server.state.kind !== 'running') return;
    const round = ++this.searches;
    this.changed.fire();
    try {
      const [found, present] = await Promise.all([this.discovered(), this.present()]);
      const known = [...found, ...(present === undefined ? [] : [present])];
      const others = this.added.filter((one) => !known.some((listed) => same(listed.baseUrl, one.baseUrl)));
      const more = await Promise.all(others.map((one) => this.listAt(one)));
      this.listed = unique([...known, ...more]);
    } catch (error) {
      this.server.output.warn(`Looking for models failed: ${sentence(error)}`);
    } finally {
      this.searches = this.searches === round ? 0 : this.searches;
      this.changed.fire();
    }
  }

  /** Use a model from the next call on, and try it. */
  async select(model: string, baseUrl?: string): Promise<boolean> {
    const origin = baseUrl === undefined ? undefined : originOf(baseUrl);
    const row = this.page().endpoints.find((one) => baseUrl !== undefined && same(one.baseUrl, baseUrl));
    const keyless = origin !== undefined && !isLocal(origin) && !this.keys.has(origin) && (row?.needsKey ?? true);
    if (keyless && !(await this.keys.ask(origin))) {
      void vscode.window.showInformationMessage(`No key was entered for ${origin}, so the model was not changed.`);
      return false;
    }
    await this.server.request('selfloop/model/select', { model, ...(baseUrl ? { baseUrl } : {}) });
    await this.context.globalState.update(CHOSEN, { model, ...(baseUrl ? { baseUrl } : {}) } satisfies Choice);
    if (baseUrl && model !== OFFLINE_MODEL) await this.remember(baseUrl);
    this.test = undefined;
    await this.server.refresh();
    this.changed.fire();
    const warning = outranked(model, baseUrl, outranking());
    if (warning !== undefined) void this.offerToEmpty(warning);
    // Not waited for: the choice holds whatever comes of the call, and the page shows it when it comes.
    if (vscode.workspace.isTrusted && model !== OFFLINE_MODEL) void this.tryOut();
    void this.search();
    return true;
  }

  /** Make one tiny call, and show how it went; never rejects. */
  async tryOut(): Promise<void> {
    this.test = { state: 'running', message: `Asking ${this.current ?? 'the model'} for one word…` };
    this.changed.fire();
    try {
      const { ok, message, latencyMs } = await this.server.request('selfloop/model/test', {});
      // The server's sentence mostly says how long it took.
      const told = message.includes(`${latencyMs} ms`);
      this.test = { state: ok ? 'ok' : 'failed', message, ...(told ? {} : { latencyMs }) };
    } catch (error) {
      this.test = { state: 'failed', message: sentence(error) };
    }
    this.changed.fire();
  }

  /** Ask for an endpoint, its key and a model, and use it. */
  async add(): Promise<void> {
    const own = 'Another address…';
    const known = KNOWN_ENDPOINTS.map((one) => ({ label: one.name, description: one.baseUrl, endpoint: one }));
    const other = { label: own, description: 'any endpoint in the OpenAI format', endpoint: undefined };
    const picked = await vscode.window.showQuickPick([...known, other], { title: 'Add an Endpoint' });
    if (picked === undefined) return;
    const baseUrl = picked.endpoint?.baseUrl ?? (await askAddress());
    if (baseUrl === undefined) return;
    const origin = originOf(baseUrl);
    if (origin !== undefined && !isLocal(origin) && !this.keys.has(origin) && !(await this.keys.ask(origin))) return;
    await this.remember(baseUrl);
    await this.search();
    await this.choose(baseUrl);
  }

  /** Ask for a model of one endpoint, or of all; what is not listed can be typed. */
  async choose(baseUrl?: string): Promise<void> {
    const rows = this.page().endpoints.filter((one) => baseUrl === undefined || same(one.baseUrl, baseUrl));
    type Item = vscode.QuickPickItem & { pick?: () => Promise<unknown> };
    const items = rows.flatMap((one): Item[] => [
      { label: one.name, kind: vscode.QuickPickItemKind.Separator },
      ...one.models.map((model) => ({
        label: `${model.current ? '$(check) ' : ''}${model.id}`,
        description: [size(model.contextTokens), model.tools === false ? 'no tool calling' : '']
          .filter(Boolean)
          .join(' · '),
        pick: () => this.select(model.id, model.baseUrl),
      })),
      ...(one.baseUrl && one.models[0]?.id !== OFFLINE_MODEL
        ? [{ label: '$(edit) Type a model’s name…', description: one.baseUrl, pick: () => this.name(one.baseUrl) }]
        : []),
    ]);
    if (baseUrl === undefined) {
      items.push({ label: '', kind: vscode.QuickPickItemKind.Separator });
      items.push({ label: '$(add) Add an endpoint…', pick: () => this.add() });
      if (this.current !== OFFLINE_MODEL) {
        items.push({
          label: '$(play) Try without a key',
          description: 'the built-in offline model',
          pick: async () => vscode.commands.executeCommand('selfloop.setup.offline'),
        });
      }
    }
    if (baseUrl !== undefined && !rows.some((one) => one.models.length > 0)) {
      await this.name(baseUrl);
      return;
    }
    const options = {
      title: 'Choose a Model',
      placeHolder: this.current ?? 'No model is chosen yet',
      matchOnDescription: true,
    };
    await (await vscode.window.showQuickPick(items, options))?.pick?.();
  }

  /** Ask for a model's name at an endpoint, and use it. */
  async name(baseUrl: string): Promise<void> {
    const model = await vscode.window.showInputBox({
      title: `Model at ${new URL(baseUrl).host}`,
      prompt: 'The name as the endpoint knows it.',
      placeHolder: 'qwen3-coder',
      ignoreFocusOut: true,
    });
    if (model?.trim()) await this.select(model.trim(), baseUrl);
  }

  /** Forget an endpoint; its key stays until it is forgotten by itself. */
  async remove(baseUrl: string): Promise<void> {
    await this.context.globalState.update(
      ADDED,
      this.added.filter((one) => !same(one.baseUrl, baseUrl)),
    );
    await this.search();
  }

  private get added(): Endpoint[] {
    return this.context.globalState.get<Endpoint[]>(ADDED, []);
  }

  private async remember(baseUrl: string): Promise<void> {
    const found = this.listed.some((one) => same(one.baseUrl, baseUrl) && one.name === 'Ollama');
    if (found || this.added.some((one) => same(one.baseUrl, baseUrl))) return;
    await this.context.globalState.update(ADDED, [...this.added, { name: nameOf(baseUrl), baseUrl }]);
  }

  private row(one: Listed): EndpointRow {
    const origin = originOf(one.baseUrl) ?? '';
    const hasKey = origin !== '' && this.keys.has(origin);
    const models = one.models.slice(0, MOST_MODELS).map((model): ModelRow => ({
      id: model.id,
      ...(one.baseUrl ? { baseUrl: one.baseUrl } : {}),
      ...(model.contextTokens === undefined ? {} : { contextTokens: model.contextTokens }),
      ...(model.tools === undefined ? {} : { tools: model.tools }),
      warnings: warnings(model),
      current: model.id === this.current && this.isCurrent(one),
    }));
    if (this.current !== undefined && this.isCurrent(one) && !models.some((model) => model.current)) {
      const warning = 'The endpoint does not list it.';
      const own = one.baseUrl ? { baseUrl: one.baseUrl } : {};
      models.unshift({ id: this.current, ...own, warnings: one.models.length > 0 ? [warning] : [], current: true });
    }
    return {
      name: one.name,
      baseUrl: one.baseUrl,
      origin,
      hasKey,
      // Where the models could be listed the server has a key, from the environment or by us, or needs none.
      needsKey: origin !== '' && !isLocal(origin) && !hasKey && one.models.length === 0,
      added: this.added.some((known) => same(known.baseUrl, one.baseUrl)),
      ...(one.problem === undefined ? {} : { problem: one.problem }),
      models,
    };
  }

  private presentBaseUrl = '';

  private isCurrent(one: Listed): boolean {
    return same(one.baseUrl, this.presentBaseUrl);
  }

  private async discovered(): Promise<Listed[]> {
    try {
      return (await this.server.request('selfloop/model/discover', {})).endpoints;
    } catch (error) {
      // A look that nobody asked for: that it failed is for the log.
      this.server.output.debug(`No local model server was looked for: ${sentence(error)}`);
      return [];
    }
  }

  /** List the models of the endpoint in use; undefined: none is in use. */
  private async present(): Promise<Listed | undefined> {
    const likely = [this.context.globalState.get<Choice>(CHOSEN)?.baseUrl, ...outranking().map((one) => one.baseUrl)];
    try {
      const { models, baseUrl } = await this.server.request('selfloop/model/list', {});
      const origin = models[0]?.origin ?? '';
      this.presentBaseUrl = baseUrlOf(baseUrl ?? '') ?? '';
      const offline = models.length === 1 && models[0]?.id === OFFLINE_MODEL;
      const name = offline ? 'Built-in offline model' : this.presentBaseUrl ? nameOf(this.presentBaseUrl) : origin;
      return { name, baseUrl: this.presentBaseUrl, models };
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      const current = this.current;
      if (current === undefined) return undefined;
      const baseUrl = baseUrlOf(likely.find((one) => one) ?? '') ?? '';
      this.presentBaseUrl = baseUrl;
      return { name: baseUrl ? nameOf(baseUrl) : current, baseUrl, models: [], problem: error.message };
    }
  }

  /** List the models of an endpoint that is not in use. */
  private async listAt(endpoint: Endpoint): Promise<Listed> {
    try {
      const { models } = await this.server.request('selfloop/model/list', { baseUrl: endpoint.baseUrl });
      return { ...endpoint, models };
    } catch (error) {
      return { ...endpoint, models: [], problem: sentence(error) };
    }
  }

  private async offerToEmpty(warning: string): Promise<void> {
    const configuration = vscode.workspace.getConfiguration('selfloop');
    const set = ['model', 'baseUrl'].filter((name) => configuration.get<string>(name, '') !== '');
    const empty = 'Empty the Setting';
    if ((await vscode.window.showWarningMessage(unlinked(warning), ...(set.length > 0 ? [empty] : []))) !== empty) return;
    for (const name of set) await configuration.update(name, undefined, vscode.ConfigurationTarget.Global);
    this.changed.fire();
  }

  dispose(): void {
    this.changed.dispose();
  }
}

/** Return what names a model more strongly than a choice does, the strongest first. */
function outranking(): { model: string; baseUrl: string; modelBy: string; baseUrlBy: string }[] {
  const configuration = vscode.workspace.getConfiguration('selfloop');
  return [
    {
      model: configuration.get<string>('model', ''),
      baseUrl: configuration.get<string>('baseUrl', ''),
      modelBy: 'The setting selfloop.model',
      baseUrlBy: 'The setting selfloop.baseUrl',
    },
    {
      model: process.env['MODEL_NAME'] ?? '',
      baseUrl: process.env['INFERENCE_BASE_URL'] ?? '',
      modelBy: 'The environment variable MODEL_NAME',
      baseUrlBy: 'The environment variable INFERENCE_BASE_URL',
    },
  ];
}

async function askAddress(): Promise<string | undefined> {
  const given = await vscode.window.showInputBox({
    title: 'Address of the Endpoint',
    prompt: 'Any endpoint in the OpenAI format.',
    placeHolder: 'http://localhost:11434/v1',
    ignoreFocusOut: true,
    validateInput: (text) =>
      !text.trim() || baseUrlOf(text) !== undefined ? undefined : 'Write it like https://host/v1, without a user name.',
  });
  return given === undefined ? undefined : baseUrlOf(given);
}

function nameOf(baseUrl: string): string {
  const known = KNOWN_ENDPOINTS.find((one) => originOf(one.baseUrl) === originOf(baseUrl));
  return known?.name ?? new URL(baseUrl).host;
}

function same(left: string, right: string): boolean {
  return baseUrlOf(left) === baseUrlOf(right);
}

function unique(rows: readonly Listed[]): Listed[] {
  return rows.filter(
    (row, at) =>
      rows.findIndex((one) => same(one.baseUrl, row.baseUrl) && (row.baseUrl || one.name === row.name)) === at,
  );
}

function size(tokens: number | undefined): string {
  return tokens === undefined ? '' : `${Math.round(tokens / 1000).toLocaleString('en')}k tokens`;
}
