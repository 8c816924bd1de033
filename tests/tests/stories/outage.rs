//! The sidecar is away: 503 and never a false 202; then it is back, and everything recovers by itself.

// Told against `fte serve intake` beside `fte sidecar`, since `fte up` has its sidecar inside.
