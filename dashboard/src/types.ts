// What the operations answer, as far as the page shows it: docs/operations.md.

export interface Worker {
  worker_id: string;
  node: string;
  status: string;
  capabilities: string[];
  max_concurrent_tasks: number;
  running_tasks: number | null;
  completed_tasks: number | null;
  failed_tasks: number | null;
  last_seen: string | null;
  metrics: {
    cpu_percent: number | null;
    memory_mb: number | null;
    load1: number | null;
    free_slots: number | null;
  } | null;
}

export interface Stats {
  queued_count: number;
  delayed_count: number;
  blocked_count: number;
  running_count: number;
  completed_count: number;
  failed_count: number;
  cancelled_count: number;
  expired_count: number;
  average_wait_time: number | null;
  average_execution_time: number | null;
  throughput: number;
  paused: boolean;
  paused_at: string | null;
  pause_reason: string | null;
  oldest_queued_age: number | null;
  scheduling: string;
  waiting: Record<string, number>;
  worker_stats: Worker[] | null;
  historical: { minute: string; ended: number; failed: number }[] | null;
  nodes_answered: number;
  nodes_expected: number;
}

export interface Peer {
  peer_id: string;
  multiaddr: string | null;
  status: string;
  capabilities: string[];
  connected_since: string | null;
  last_seen: string | null;
  metrics: { latency_ms: number | null; bandwidth_mbps: number | null; reliability_score: number | null };
}

export interface Paged {
  total_count: number;
  returned_count: number;
  has_more: boolean;
  next_cursor: string | null;
  nodes_answered: number;
  nodes_expected: number;
}

export interface Task {
  task_id: string;
  task_type: string;
  status: string;
  priority: number;
  tags: string[];
  worker_id: string | null;
  attempt: number;
  submitted_at: string;
  start_time: string | null;
  end_time: string | null;
  home_node: string;
  schedule: object | null;
}

export interface TaskPage extends Paged {
  tasks: Task[];
}

export interface TaskStatus {
  task_id: string;
  task_type: string;
  status: string;
  progress: number | null;
  progress_message: string | null;
  worker_id: string | null;
  attempt: number;
  start_time: string | null;
  end_time: string | null;
  queue_position: number | null;
  logs: string | null;
  metrics: {
    submitted_at: string;
    delayed_until: string | null;
    failures: number;
    crashes: number;
    wait_time: number | null;
    execution_time: number | null;
    cpu_user_ms: number | null;
    cpu_system_ms: number | null;
    max_rss_kib: number | null;
    holders: string[];
    epoch: number;
  } | null;
  explanation: {
    reason: string | null;
    summary: string;
    nodes: { node: string; worker_id: string | null; reason: string }[];
    next: string;
    next_at: string | null;
  } | null;
  error: string | null;
  retry_of: string | null;
  retried_as: string | null;
  schedule: {
    cron: string;
    timezone: string;
    task_type: string;
    ticks: number;
    last_tick: string | null;
    last_task_id: string | null;
    last_status: string | null;
    next_tick: string | null;
  } | null;
}

export interface TaskResult {
  status: string;
  result: unknown;
  output: string | null;
  output_encoding: string | null;
  next_output_offset: number | null;
  logs: string | null;
  output_cid: string | null;
  output_bytes: number | null;
  truncated: boolean;
  error: string | null;
}

export interface Workflow {
  workflow_id: string;
  name: string;
  status: string;
  progress: number | null;
  step_count: number;
  priority: number;
  tags: string[];
  peer_id: string;
  submitted_at: string;
  start_time: string | null;
  end_time: string | null;
}

export interface WorkflowPage extends Paged {
  workflows: Workflow[];
}

export interface Step {
  step_id: string;
  status: string;
  task_id: string | null;
  attempt: number;
  worker_id: string | null;
  start_time: string | null;
  end_time: string | null;
  error: string | null;
  tasks: number | null;
  tasks_ended: number | null;
}

export interface WorkflowStatus {
  workflow_id: string;
  name: string;
  status: string;
  progress: number | null;
  peer_id: string;
  start_time: string | null;
  end_time: string | null;
  steps: Step[] | null;
  metrics: {
    submitted_at: string;
    tasks: number;
    tasks_ended: number;
    wait_time: number | null;
    execution_time: number | null;
    critical_path: string[];
    critical_path_time: number | null;
    holders: string[];
    epoch: number;
  } | null;
  error: string | null;
}

export interface Graph {
  nodes: { id: string; label: string; status: string }[];
  edges: { from: string; to: string }[];
  critical_path: string[];
}

export interface PeerMetrics {
  current_metrics: {
    latency_ms: number | null;
    bandwidth_mbps: number | null;
    packet_loss_percent: number | null;
    connection_quality: number | null;
    reliability_score: number | null;
    uptime_hours: number | null;
    requests_served: number;
    bytes_transferred: number | null;
  };
  connection_info: {
    status: string;
    connected_since: string | null;
    last_active: string | null;
    protocol_version: string | null;
    peer_type: string | null;
    capabilities: string[];
  };
  history: { timestamp: string; latency_ms: number | null; connected: boolean }[] | null;
}
