// Every selfloop/* message, the twin of server/selfloop/lsp/protocol.py, held equal by a test.
// Written by `python tests/protocol_twin.py`. A field that equals its default is left out on the wire: optional here.

export const UPDATE = 'selfloop/update';
export const DID_FOCUS = 'textDocument/didFocus';

/** What the round would do, or did. */
export interface ActionReport {
  kind: string;
  summary: string;
}

/** What the maker or the checker did. */
export interface AgentReport {
  status: 'Done' | 'DoneWithConcerns' | 'NeedsContext' | 'Blocked';
  iterations: number;
  text: string;
}

/** A loop's budget: for a round, and for all rounds of a day. */
export interface BudgetInfo {
  maxInputTokens?: number;
  maxOutputTokens?: number;
  maxTotalTokens?: number;
  maxCostUsd?: number;
  maxSeconds?: number;
  maxIterations?: number;
  day?: LimitsInfo;
}

/** One check that the checker ran. */
export interface EvidenceInfo {
  check: string;
  command: string;
  exitCode: number;
  uri: string;
  counts?: boolean;
}

/** Limits; what is left out is not limited. */
export interface LimitsInfo {
  maxInputTokens?: number;
  maxOutputTokens?: number;
  maxTotalTokens?: number;
  maxCostUsd?: number;
  maxSeconds?: number;
  maxIterations?: number;
}

/** A loop as it is listed. */
export interface LoopInfo {
  loopId: string;
  intent: string;
  level: 'L1-report' | 'L2-assisted' | 'L3-unattended';
  maxLevel: 'L1-report' | 'L2-assisted' | 'L3-unattended';
  cadence: string;
  enabled: boolean;
  budget: BudgetInfo;
  action: string;
  allow?: string[];
  origin?: string;
  uri?: string;
  nextAt?: string;
  lastRun?: RoundReport;
  notices?: string[];
}

/** How a round ended. */
export interface Outcome {
  type: 'reported' | 'proceeded' | 'escalated' | 'budget-exhausted' | 'failed';
  reason?: string;
  limit?: 'input-tokens' | 'output-tokens' | 'total-tokens' | 'cost' | 'seconds' | 'iterations' | 'input-tokens-day' | 'output-tokens-day' | 'total-tokens-day' | 'cost-day' | 'seconds-day' | 'iterations-day';
  error?: string;
}

/** That something was carried out: by the round, or after a human had approved it. */
export interface ReceiptInfo {
  kind: string;
  summary: string;
  at: string;
  uri?: string;
}

/** The record of a round. */
export interface RoundReport {
  runId: string;
  loopId: string;
  intent: string;
  level: 'L1-report' | 'L2-assisted' | 'L3-unattended';
  outcome: Outcome;
  verified: boolean;
  inputTokens: number;
  outputTokens: number;
  startedAt: string;
  endedAt: string;
  maker?: AgentReport;
  checker?: AgentReport;
  action?: ActionReport;
  costUsd?: number;
  gateId?: string;
  receipts?: ReceiptInfo[];
  workspaceFolder?: string;
}

/** The files that the running turn has changed so far. */
export interface Changes {
  type: 'changes';
  files: FileStat[];
}

/** A file of a running turn's changes. */
export interface FileStat {
  uri: string;
  added: number;
  removed: number;
}

/** A gate was opened or has changed. */
export interface Gate {
  type: 'gate';
  gate: GateInfo;
}

/** Something about the forthcoming change that a person should look at twice. */
export interface GateFlag {
  kind: 'deletion' | 'dependency' | 'ci' | 'protected' | 'hidden' | 'binary' | 'executable' | 'link';
  text: string;
  uri?: string;
}

/** A gate as clients see it. `subject` has a `type` of changes, command, action, level or evolution. */
export interface GateInfo {
  gateId: string;
  state: 'open' | 'resolved' | 'stale' | 'expired' | 'cancelled';
  subject: Record<string, unknown>;
  title: string;
  risk: 'low' | 'medium' | 'high';
  options: GateOption[];
  digest: string;
  createdAt: string;
  default: 'reject';
  description?: string;
  runId?: string;
  sessionId?: string;
  resolvedBy?: string;
  comment?: string;
}

/** One way to answer a gate. */
export interface GateOption {
  optionId: string;
  name: string;
  kind: 'allow_once' | 'allow_always' | 'reject_once' | 'reject_always';
  rule?: string;
}

/** Where a swap is: `starting`, `active` (it serves, on probation), `settled`, `rolled-back` or `refused`. */
export interface Generation {
  type: 'generation';
  number: number;
  state: string;
  restartId?: string;
  reason?: string;
}

/** A place that a tool call is about. */
export interface Location {
  uri: string;
  line?: number;
}

/** A loop has changed: its file, its settings, when it is due, its last round. */
export interface LoopUpdate {
  type: 'loop';
  loop: LoopInfo;
}

/** A piece of a message that is being written. */
export interface MessageChunk {
  type: 'messageChunk';
  messageId: string;
  text: string;
}

/** A whole message. One of an id that came before replaces that: the user has edited it while it waited. */
export interface MessageUpdate {
  type: 'message';
  messageId: string;
  role: 'user' | 'assistant';
  text: string;
  status?: 'interrupted' | 'removed';
}

/** One plain sentence for the user. */
export interface Notice {
  type: 'notice';
  severity: 'info' | 'warning' | 'error';
  text: string;
}

/** The agent's plan, whole each time. */
export interface Plan {
  type: 'plan';
  entries: PlanEntry[];
}

/** One step of the agent's plan. */
export interface PlanEntry {
  text: string;
  status: 'pending' | 'in_progress' | 'completed';
}

/** Zero-based line and UTF-16 code unit, as LSP has them. */
export interface Position {
  line: number;
  character: number;
}

/** What waits in the session, in the order in which it will be taken up; whole each time. */
export interface Queue {
  type: 'queue';
  entries: QueueEntry[];
}

/** A message of the user's that no turn has taken up yet. */
export interface QueueEntry {
  messageId: string;
  text: string;
  delivery: 'queue' | 'steer';
}

/** Half open, as LSP has it. */
export interface Range {
  start: Position;
  end: Position;
}

/** Where a round is; with `done` comes its report, and again when a receipt was added to that later. */
export interface RunUpdate {
  type: 'run';
  runId: string;
  loopId: string;
  phase: 'recall' | 'sandbox' | 'make' | 'check' | 'gate' | 'act' | 'record' | 'done' | 'reflect' | 'evolve' | 'refine' | 'verify' | 'docs' | 'swap' | 'probation';
  report?: RoundReport;
}

/** Whether a turn runs. `stop_reason` comes with `idle`. */
export interface State {
  type: 'state';
  state: 'running' | 'idle';
  stopReason?: 'end_turn' | 'max_tokens' | 'budget' | 'stuck' | 'cancelled' | 'error';
  usage?: UsageInfo;
  turnId?: string;
}

/** A new task began; results go to `output_dir`. */
export interface Task {
  type: 'task';
  number: number;
  outputDir: string;
}

/** A piece of the model's reasoning, where the provider shows it. */
export interface Thought {
  type: 'thought';
  text: string;
  messageId?: string;
}

/** A tool call's state: an upsert by `tool_call_id`. */
export interface ToolCallUpdate {
  type: 'toolCall';
  toolCallId: string;
  title: string;
  kind: 'read' | 'edit' | 'delete' | 'search' | 'execute' | 'agent' | 'memory' | 'other';
  status: 'pending' | 'running' | 'completed' | 'failed';
  locations: Location[];
  input?: string;
  output?: string;
}

/** What to know before approving: computed for what is pending now, stale hunks left out. */
export interface TrustCard {
  request: string;
  files: number;
  added: number;
  removed: number;
  isolation: 'none' | 'changes' | 'process';
  flags: GateFlag[];
}

/** The params of `selfloop/update`. `seq` rises by one in its stream: the session's, else the workspace's. */
export interface UpdateEnvelope {
  seq: number;
  at: string;
  update: Update;
  sessionId?: string;
  runId?: string;
  workspaceFolder?: string;
}

/** What was used, in tokens and money. */
export interface UsageInfo {
  inputTokens: number;
  cachedTokens: number;
  outputTokens: number;
  costUsd?: number;
}

/** The session's use so far, and how full the model's context is. */
export interface UsageUpdate {
  type: 'usage';
  inputTokens: number;
  cachedTokens: number;
  outputTokens: number;
  contextTokens: number;
  contextLimit: number;
  costUsd?: number;
}

/** A diagnostic that the client attaches; foreign fields are ignored. */
export interface ContextDiagnostic {
  message: string;
  range?: Range;
  severity?: number;
  source?: string;
  code?: string | number;
}

/** Something attached to a prompt or a round: a file, a selection in it, or text. */
export interface ContextItem {
  uri: string;
  range?: Range;
  text?: string;
  diagnostics?: ContextDiagnostic[];
}

/** `{}`. */
export type Empty = Record<string, never>;

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface FileDiff {
  uri: string;
  operation: 'create' | 'modify' | 'delete' | 'rename';
  diff: string;
}

/** What is absent stays as it is. */
export interface LoopConfigureParams {
  loopId: string;
  enabled?: boolean;
  level?: string;
  cadence?: string;
  budget?: BudgetInfo;
  allow?: string[];
  workspaceFolder?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface LoopConfigureResult {
  loop: LoopInfo;
  gateId?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface LoopListParams {
  workspaceFolder?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface LoopListResult {
  loops: LoopInfo[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RunListParams {
  loopId?: string;
  limit?: number;
  workspaceFolder?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RunListResult {
  runs: RoundReport[];
  running?: RunningInfo[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RunReadResult {
  rendered: string;
  evidence: EvidenceInfo[];
  phase: 'recall' | 'sandbox' | 'make' | 'check' | 'gate' | 'act' | 'record' | 'done' | 'reflect' | 'evolve' | 'refine' | 'verify' | 'docs' | 'swap' | 'probation';
  run?: RoundReport;
  gateId?: string;
  makerSessionId?: string;
  checkerSessionId?: string;
  files?: FileDiff[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RunRef {
  runId: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RunStartParams {
  loopId: string;
  budget?: LimitsInfo;
  context?: ContextItem[];
  workspaceFolder?: string;
}

/** A round that has not ended. */
export interface RunningInfo {
  runId: string;
  loopId: string;
  phase: 'recall' | 'sandbox' | 'make' | 'check' | 'gate' | 'act' | 'record' | 'done' | 'reflect' | 'evolve' | 'refine' | 'verify' | 'docs' | 'swap' | 'probation';
  startedAt: string;
  workspaceFolder: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SpendListParams {
  days?: number;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SpendListResult {
  rows: SpendRow[];
}

/** What one loop, or one session, used on one day of the user's calendar. */
export interface SpendRow {
  day: string;
  inputTokens: number;
  cachedTokens: number;
  outputTokens: number;
  workspaceFolder: string;
  loopId?: string;
  sessionId?: string;
  costUsd?: number;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GenerationGraphResult {
  svg: string;
}

/** One self: the installed package (0), or one that came of it by a change that was judged and approved. */
export interface GenerationInfo {
  number: number;
  commit: string;
  tree: string;
  state: 'verified' | 'active' | 'settled' | 'rolled-back';
  createdAt: string;
  summary: string;
  tokens: UsageInfo;
  parent?: number;
  approvedBy?: string;
  reason?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GenerationListResult {
  generations: GenerationInfo[];
  active: number;
  paused?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GenerationReadResult {
  generation: GenerationInfo;
  diff: string;
  evidence: LayerInfo[];
  origins: string[];
  learned?: string;
  verify?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GenerationRef {
  number: number;
}

/** What one layer of the judge has found. */
export interface LayerInfo {
  name: string;
  title: string;
  passed: boolean;
  reason: string;
  seconds: number;
  details?: string[];
}

/** The one argument of the command `selfloop.ask`: a prompt about a place, or a stale change once more. */
export interface AskParams {
  uri?: string;
  range?: Range;
  text?: string;
  diagnostics?: ContextDiagnostic[];
  intent?: 'explain' | 'fix' | 'improve' | 'test' | 'about' | 'again' | 'loop';
  prompt?: string;
  sessionId?: string;
  gateId?: string;
  hunkId?: string;
  loopId?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface AskResult {
  sessionId: string;
  messageId: string;
  turnId: string;
  delivery: 'start' | 'queue' | 'steer';
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ChangeUndoParams {
  gateId: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ChangeUndoResult {
  applied: string[];
  conflicts: Conflict[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ChangesReadResult {
  files: FileDiff[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface Conflict {
  uri: string;
  reason: string;
}

/** A model server that was found without being asked for. */
export interface DiscoveredEndpoint {
  name: string;
  baseUrl: string;
  models: ModelInfo[];
}

/** A command that ran in the turns behind a gate. */
export interface Evidence {
  check: string;
  command: string;
  exitCode?: number;
  uri?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface FocusParams {
  textDocument?: Record<string, unknown>;
  selections?: Range[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GateFile {
  uri: string;
  operation: 'create' | 'modify' | 'delete' | 'rename';
  diff: string;
  hunks: GateHunk[];
  oldUri?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GateHunk {
  hunkId: string;
  digest: string;
  range: Range;
  newText: string;
  status: 'pending' | 'approved' | 'rejected' | 'stale';
  reason?: string;
  risk?: 'low' | 'medium' | 'high';
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GateListParams {
  state?: 'open' | 'resolved' | 'stale' | 'expired' | 'cancelled';
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GateListResult {
  gates: GateInfo[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GateReadParams {
  gateId: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GateReadResult {
  gate: GateInfo;
  files: GateFile[];
  evidence: Evidence[];
  card?: TrustCard;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GateResolveParams {
  gateId: string;
  optionId: string;
  digest?: string;
  hunks?: HunkRef[];
  comment?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface GateResolveResult {
  gate: GateInfo;
  applied: string[];
  conflicts: Conflict[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface HunkRef {
  hunkId: string;
  digest: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ModelDiscoverResult {
  endpoints: DiscoveredEndpoint[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ModelInfo {
  id: string;
  origin: string;
  tools?: boolean;
  contextTokens?: number;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ModelListParams {
  baseUrl?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ModelListResult {
  models: ModelInfo[];
  current?: string;
  baseUrl?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ModelSelectParams {
  model: string;
  baseUrl?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ModelSetKeyParams {
  origin: string;
  key: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface ModelTestResult {
  ok: boolean;
  message: string;
  latencyMs: number;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RestartParams {
  when?: 'idle' | 'now';
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RestartResult {
  restartId: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RuleInfo {
  ruleId: string;
  rule: string;
  origin: string;
  example: string;
  uses: number;
  createdAt: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RuleListResult {
  rules: RuleInfo[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface RuleRemoveParams {
  ruleId: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionInfo {
  sessionId: string;
  title: string;
  createdAt: string;
  updatedAt: string;
  state: 'running' | 'idle';
  inputTokens: number;
  outputTokens: number;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionListParams {
  query?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionListResult {
  sessions: SessionInfo[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionNewParams {
  workspaceFolder?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionPromptParams {
  sessionId: string;
  text: string;
  context?: ContextItem[];
  delivery?: 'queue' | 'steer';
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionPromptResult {
  messageId: string;
  turnId: string;
  delivery: 'start' | 'queue' | 'steer';
}

/** What waits, as the update `queue` tells it. */
export interface SessionQueueResult {
  entries: QueueEntry[];
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionReadParams {
  sessionId: string;
  before?: number;
  limit?: number;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionReadResult {
  updates: UpdateEnvelope[];
  more: boolean;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionRef {
  sessionId: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionRenameParams {
  sessionId: string;
  title: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionRequeueParams {
  sessionId: string;
  messageId: string;
  text?: string;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionResumeParams {
  sessionId: string;
  after?: number;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface SessionResumeResult {
  sessionId: string;
  seq: number;
}

/** Base of everything that travels: camelCase, defaults left out, unknown fields ignored. */
export interface StatusResult {
  version: string;
  generation: number;
  model: string | null;
  isolation: 'none' | 'changes' | 'process';
  sessions: number;
  runs: number;
  gatesPending: number;
  spend: UsageInfo;
  trusted: boolean;
  folders: string[];
  isolationDetail?: string;
}

export type Update =
  | MessageUpdate
  | MessageChunk
  | Thought
  | ToolCallUpdate
  | Plan
  | State
  | Changes
  | Task
  | Gate
  | UsageUpdate
  | Generation
  | Queue
  | RunUpdate
  | LoopUpdate
  | Notice;

/** The contract: every request, with its parameters and its result. */
export interface Methods {
  'selfloop/session/new': { params: SessionNewParams; result: SessionRef };
  'selfloop/session/list': { params: SessionListParams; result: SessionListResult };
  'selfloop/session/resume': { params: SessionResumeParams; result: SessionResumeResult };
  'selfloop/session/prompt': { params: SessionPromptParams; result: SessionPromptResult };
  'selfloop/session/queue': { params: SessionRef; result: SessionQueueResult };
  'selfloop/session/requeue': { params: SessionRequeueParams; result: SessionQueueResult };
  'selfloop/session/read': { params: SessionReadParams; result: SessionReadResult };
  'selfloop/session/rename': { params: SessionRenameParams; result: Empty };
  'selfloop/session/delete': { params: SessionRef; result: Empty };
  'selfloop/session/cancel': { params: SessionRef; result: Empty };
  'selfloop/changes/read': { params: SessionRef; result: ChangesReadResult };
  'selfloop/gate/list': { params: GateListParams; result: GateListResult };
  'selfloop/gate/read': { params: GateReadParams; result: GateReadResult };
  'selfloop/gate/resolve': { params: GateResolveParams; result: GateResolveResult };
  'selfloop/change/undo': { params: ChangeUndoParams; result: ChangeUndoResult };
  'selfloop/loop/list': { params: LoopListParams; result: LoopListResult };
  'selfloop/loop/configure': { params: LoopConfigureParams; result: LoopConfigureResult };
  'selfloop/run/start': { params: RunStartParams; result: RunRef };
  'selfloop/run/list': { params: RunListParams; result: RunListResult };
  'selfloop/run/read': { params: RunRef; result: RunReadResult };
  'selfloop/run/cancel': { params: RunRef; result: Empty };
  'selfloop/spend/list': { params: SpendListParams; result: SpendListResult };
  'selfloop/generation/list': { params: Empty; result: GenerationListResult };
  'selfloop/generation/read': { params: GenerationRef; result: GenerationReadResult };
  'selfloop/generation/graph': { params: Empty; result: GenerationGraphResult };
  'selfloop/generation/activate': { params: GenerationRef; result: RestartResult };
  'selfloop/model/list': { params: ModelListParams; result: ModelListResult };
  'selfloop/model/discover': { params: Empty; result: ModelDiscoverResult };
  'selfloop/model/select': { params: ModelSelectParams; result: Empty };
  'selfloop/model/test': { params: Empty; result: ModelTestResult };
  'selfloop/model/setKey': { params: ModelSetKeyParams; result: Empty };
  'selfloop/rule/list': { params: Empty; result: RuleListResult };
  'selfloop/rule/remove': { params: RuleRemoveParams; result: Empty };
  'selfloop/status': { params: Empty; result: StatusResult };
  'selfloop/restart': { params: RestartParams; result: RestartResult };
}
