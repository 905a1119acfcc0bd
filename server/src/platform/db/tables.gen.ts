// Made from the schema by `npm run tables`; not to be edited.
export interface Tables {
  accounts: {
    tenant_id: string;
    identity_id: string;
    username: string;
    username_key: string;
    email: string | null;
    password_hash: string | null;
    password_changed_at: string | null;
    created_at: string;
    updated_at: string;
  };
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
    old_secrets: unknown;
    self_serve: boolean;
    expired_at: string | null;
  };
  attempts: {
    key: Buffer;
    failures: number;
    last_at: number;
    blocked_until: number;
    trusted_until: number;
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
  delegations: {
    tenant_id: string;
    id: string;
    subject_id: string;
    agent_id: string;
    parent_id: string | null;
    session_id: string | null;
    api_key_id: string | null;
    scopes: unknown;
    reason: string | null;
    expires_at: string;
    revoked_at: string | null;
    created_at: string;
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
    owner_id: string | null;
  };
  identity_providers: {
    tenant_id: string;
    id: string;
    name: string;
    issuer: string;
    client_id: string;
    client_secret: Buffer | null;
    scopes: unknown;
    default_role: string;
    allowed_email_domains: unknown;
    jit_enabled: boolean;
    role_claim: string | null;
    role_mapping: unknown;
    enabled: boolean;
    created_at: string;
    updated_at: string;
  };
  invitations: {
    tenant_id: string;
    id: string;
    email: string;
    email_key: string;
    role: string;
    claims: unknown;
    status: string;
    token_hash: Buffer | null;
    expires_in_days: number;
    expires_at: string;
    accepted_at: string | null;
    identity_id: string | null;
    invited_by: string | null;
    mails_from: string;
    mails: number;
    created_at: string;
    updated_at: string;
  };
  login_names: {
    tenant_id: string;
    name_hash: Buffer;
    identity_id: string;
    created_at: string;
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
  mfa_backup_codes: {
    tenant_id: string;
    identity_id: string;
    code_hash: Buffer;
  };
  mfa_challenges: {
    tenant_id: string;
    id: string;
    identity_id: string;
    token_hash: Buffer;
    first_factor: string;
    attempts: number;
    created_at: string;
    expires_at: string;
  };
  mfa_factors: {
    tenant_id: string;
    identity_id: string;
    secret: Buffer;
    last_step: number;
    setup_at: string;
    enabled_at: string;
    codes_regenerated_at: string | null;
  };
  mfa_setups: {
    tenant_id: string;
    identity_id: string;
    id: string;
    sealed: Buffer;
    created_at: string;
  };
  password_reset_requests: {
    id: string;
    kind: string;
    name_hash: Buffer;
    wanted_tenant: string | null;
    ip: string | null;
    user_agent: string | null;
    request_id: string;
    created_at: string;
  };
  password_resets: {
    tenant_id: string;
    identity_id: string;
    token_hash: Buffer;
    created_at: string;
    expires_at: string;
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
  rate_limit_rules: {
    tenant_id: string;
    id: string;
    scope: string;
    subject: string;
    endpoint: string;
    burst: number;
    window_seconds: number;
    is_operator: boolean;
    created_at: string;
    updated_at: string;
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
    corpus_id: string;
    created_at: string;
    updated_at: string;
  };
  runs: {
    tenant_id: string;
    id: string;
    identity_id: string;
    session_id: string;
    corpus_id: string;
    status: string;
    model: string | null;
    error_code: string | null;
    request_id: string | null;
    lease_until: string;
    created_at: string;
    completed_at: string | null;
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
    last_used_at: string;
    created_at: string;
    updated_at: string;
    previous_hash: Buffer | null;
    successor_salt: Buffer | null;
    rotated_at: string | null;
    revoked_at: string | null;
  };
  signing_keys: {
    kid: string;
    algorithm: string;
    public_jwk: unknown;
    private_jwk: Buffer | null;
    created_at: string;
    retired_at: string | null;
    follows: string;
    signs_from: string;
  };
  sso_codes: {
    tenant_id: string;
    code_hash: Buffer;
    identity_id: string;
    code_challenge: string;
    sealed: Buffer;
    expires_at: string;
  };
  sso_links: {
    tenant_id: string;
    issuer: string;
    subject: string;
    identity_id: string;
    provider_id: string;
    created_at: string;
  };
  sso_states: {
    tenant_id: string;
    state_hash: Buffer;
    browser_hash: Buffer;
    provider_id: string;
    sealed: Buffer;
    expires_at: string;
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
