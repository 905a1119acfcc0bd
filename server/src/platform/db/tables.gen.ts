// Made from the schema by `npm run tables`; not to be edited.
export interface Tables {
  api_keys: {
    tenant_id: string;
    id: string;
    identity_id: string;
    name: string;
    secret_hash: Buffer;
    scopes: unknown;
    is_active: boolean;
    expires_at: string | null;
    last_used_at: string | null;
    revoked_at: string | null;
    created_at: string;
    updated_at: string;
  };
  chunk_vectors: {
    tenant_id: string;
    chunk_id: string;
    corpus_id: string;
    model: string;
    embedding: Buffer;
  };
  chunks: {
    tenant_id: string;
    id: string;
    document_id: string;
    corpus_id: string;
    position: number;
    text: string;
    above: string;
    heading_path: unknown;
    offset_start: number;
    offset_end: number;
    words: Buffer;
    trigrams: Buffer;
  };
  corpora: {
    tenant_id: string;
    id: string;
    name: string;
    provider_config_json: unknown;
    created_at: string;
    updated_at: string;
  };
  documents: {
    tenant_id: string;
    id: string;
    corpus_id: string;
    filename: string;
    content_type: string;
    source: string;
    ingest_source: string;
    metadata_json: unknown;
    content: Buffer;
    content_hash: Buffer;
    options: unknown;
    created_by: string | null;
    status: string;
    attempt: number;
    requeues: number;
    failure_reason: string | null;
    num_chunks: number | null;
    created_at: string;
    updated_at: string;
    queued_at: string | null;
    processing_started_at: string | null;
    completed_at: string | null;
    last_reindexed_at: string | null;
    last_job_id: string | null;
  };
  fact_positions: {
    tenant_id: string;
    numbered: number;
    relayed: number;
  };
  facts: {
    tenant_id: string;
    id: string;
    seq: number | null;
    type: string;
    actor_type: string;
    actor_id: string | null;
    on_behalf_of: string | null;
    resource_type: string;
    resource_id: string | null;
    outcome: string;
    before: unknown | null;
    after: unknown | null;
    data: unknown;
    request_id: string | null;
    ip: string | null;
    user_agent: string | null;
    created_at: string;
  };
  idempotency_keys: {
    tenant_id: string;
    credential: string;
    method: string;
    path: string;
    key: string;
    request_hash: Buffer;
    claim: string;
    claimed_until: string;
    status: number | null;
    response: Buffer | null;
    headers: unknown | null;
    request_id: string | null;
    created_at: string;
    expires_at: string;
  };
  identities: {
    tenant_id: string;
    id: string;
    external_id: string;
    role: string;
    name: string | null;
    description: string | null;
    claims: unknown;
    is_active: boolean;
    created_at: string;
    updated_at: string;
  };
  mails: {
    tenant_id: string;
    id: string;
    kind: string;
    sealed: Buffer | null;
    status: string;
    failure_reason: string | null;
    created_at: string;
  };
  memories: {
    tenant_id: string;
    id: string;
    identity_id: string;
    text: string;
    type: string;
    metadata: unknown;
    session_id: string | null;
    role: string | null;
    occurred_at: string | null;
    ttl_days: number | null;
    expires_at: string | null;
    version: number;
    created_at: string;
    updated_at: string;
    deleted_at: string | null;
    words: Buffer;
    trigrams: Buffer;
  };
  memory_queue: {
    tenant_id: string;
    memory_id: string;
    created_at: string;
  };
  memory_vectors: {
    tenant_id: string;
    memory_id: string;
    model: string;
    embedding: Buffer;
  };
  policies: {
    tenant_id: string;
    id: string;
    role: string;
    rule: unknown;
    effect: string;
    priority: number;
    is_active: boolean;
    description: string | null;
    code: string | null;
    message: string | null;
    rule_key: string | null;
    created_at: string;
    updated_at: string;
  };
  run_audio: {
    tenant_id: string;
    id: string;
    run_id: string;
    identity_id: string;
    mime: string;
    bytes: number | null;
    ready_at: string | null;
    created_at: string;
    expires_at: string;
  };
  run_checkpoint_writes: {
    tenant_id: string;
    thread_id: string;
    namespace: string;
    checkpoint_id: string;
    task_id: string;
    position: number;
    channel: string;
    value: Buffer;
  };
  run_checkpoints: {
    tenant_id: string;
    thread_id: string;
    namespace: string;
    id: string;
    parent_id: string | null;
    checkpoint: Buffer;
    metadata: Buffer;
    created_at: string;
  };
  run_events: {
    tenant_id: string;
    run_id: string;
    last_seq: number;
    events: unknown;
  };
  run_messages: {
    tenant_id: string;
    id: string;
    identity_id: string;
    session_id: string;
    run_id: string;
    role: string;
    text: string;
    citations: unknown;
    created_at: string;
  };
  run_sessions: {
    tenant_id: string;
    id: string;
    identity_id: string;
    corpus_id: string | null;
    created_at: string;
    updated_at: string;
  };
  runs: {
    tenant_id: string;
    id: string;
    identity_id: string;
    session_id: string;
    corpus_id: string | null;
    status: string;
    model: string | null;
    error_code: string | null;
    request_id: string | null;
    lease_until: string;
    created_at: string;
    completed_at: string | null;
    on_disconnect: string;
    process_id: string | null;
    last_seq: number;
    watched_until: string | null;
    answered_at: string | null;
    provider: string | null;
    finish_reason: string | null;
    usage: unknown | null;
    timings: unknown | null;
    disconnects: number;
    events_expire_at: string | null;
  };
  schema_migrations: {
    version: number;
    name: string;
    checksum: string;
    applied_at: string;
  };
  sessions: {
    tenant_id: string;
    id: string;
    identity_id: string;
    refresh_hash: Buffer;
    device_info: unknown;
    ip_address: string | null;
    user_agent: string | null;
    is_active: boolean;
    expires_at: string;
    last_used_at: string | null;
    created_at: string;
    updated_at: string;
  };
  signing_keys: {
    kid: string;
    algorithm: string;
    public_jwk: unknown;
    private_jwk: Buffer;
    created_at: string;
    retired_at: string | null;
  };
  tenants: {
    tenant_id: string;
    name: string;
    plan: string | null;
    is_active: boolean;
    created_at: string;
    updated_at: string;
  };
  term_counts: {
    tenant_id: string;
    scope: string;
    field: string;
    dimension: number;
    texts: number;
  };
  text_counts: {
    tenant_id: string;
    scope: string;
    texts: number;
  };
}
