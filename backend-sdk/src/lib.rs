//! backend-sdk
