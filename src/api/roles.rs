//! Roles of operators and what each may do. A person at a till may never do more than both
//! the till's token and the role allow (docs/operators.md has the table for people).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Scope;
use crate::ident::OperatorId;

/// What somebody is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sells and tops up.
    Cashier,
    /// Also issues cards and asks vehicles.
    Manager,
    /// Works in the bay.
    Technician,
    /// Everything.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Cashier, Self::Manager, Self::Technician, Self::Admin];

    /// The name in the database and in commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cashier => "cashier",
            Self::Manager => "manager",
            Self::Technician => "technician",
            Self::Admin => "admin",
        }
    }

    /// What the role may do.
    #[must_use]
    pub fn scopes(self) -> &'static [Scope] {
        use Scope::{Issue, Print, Read, Spend, Topup, Vehicle};
        match self {
            Self::Cashier => &[Read, Spend, Topup, Print],
            Self::Manager => &[Read, Spend, Topup, Issue, Print, Vehicle],
            Self::Technician => &[Read, Vehicle],
            Self::Admin => &Scope::ALL,
        }
    }

    /// What both this role and a token with `granted` may do.
    #[must_use]
    pub fn within(self, granted: &[Scope]) -> Vec<Scope> {
        granted.iter().copied().filter(|scope| self.scopes().contains(scope)).collect()
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a role; use cashier, manager, technician or admin"))
    }
}

/// The person who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// What the ledger names.
    pub id: OperatorId,
    /// For people.
    pub name: String,
    /// What somebody is.
    pub role: Role,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_does_more_than_both_allow() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            for scope in Scope::ALL {
                let both = role.within(&[scope]);
                assert_eq!(both.contains(&scope), role.scopes().contains(&scope), "{role:?} {scope:?}");
            }
            assert!(role.within(&[]).is_empty());
        }
        assert!(!Role::Manager.scopes().contains(&Scope::Admin));
    }
}
