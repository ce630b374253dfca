//! ServiceAccounts: one per service, none with a token, because none of them speaks to the API server.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::meta;
use crate::reconcile::validate::Valid;

/// The account of one service.
pub fn service_account(valid: &Valid, service: &str) -> ServiceAccount {
    ServiceAccount {
        metadata: meta::owned(valid, service, service),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
