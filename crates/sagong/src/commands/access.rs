//! Flags of `sagong server` that say who may reach the API and do what, with the names that kube-apiserver gives them.

use anyhow::{Context, Result};
use apiserver::authn::config::OidcFlags;
use apiserver::authn::front_proxy::FrontProxy;
use apiserver::authn::{self, WebhookSettings};
use apiserver::authz;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

fn duration(text: &str) -> Result<Duration, String> {
    api::duration::parse(text).ok_or_else(|| format!("{text:?} is no duration: write it as 30s or 5m"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as claim=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Authentication and authorization.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Access")]
pub struct Access {
    /// Lets requests without credentials through as system:anonymous
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    anonymous_auth: bool,
    /// AuthenticationConfiguration file; changes are followed
    #[arg(long, value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    /// AuthorizationConfiguration file; changes are followed
    #[arg(long, value_name = "FILE", conflicts_with = "authorization_mode")]
    authorization_config: Option<PathBuf>,
    /// Authorizers in order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC", value_name = "MODES")]
    authorization_mode: Vec<String>,
    /// Kubeconfig of the webhook of authorization mode Webhook
    #[arg(long, value_name = "FILE")]
    authorization_webhook_config_file: Option<PathBuf>,
    /// How long its permissions are kept
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "DURATION")]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// How long its refusals are kept
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    authorization_webhook_cache_unauthorized_ttl: Duration,
    /// Version of authorization.k8s.io that it speaks
    #[arg(long, default_value = "v1beta1", value_name = "VERSION")]
    authorization_webhook_version: String,
    /// File of tokens: token,user,uid,"group1,group2" on each line
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Kubeconfig of a webhook that knows bearer tokens
    #[arg(long, value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long its answers are kept
    #[arg(long, default_value = "2m", value_parser = duration, value_name = "DURATION")]
    authentication_token_webhook_cache_ttl: Duration,
    /// Version of authentication.k8s.io that it speaks
    #[arg(long, default_value = "v1beta1", value_name = "VERSION")]
    authentication_token_webhook_version: String,
    #[command(flatten)]
    oidc: Oidc,
    #[command(flatten)]
    request_header: RequestHeader,
    /// Issuer of service account tokens
    #[arg(long, default_value = "https://kubernetes.default.svc", value_name = "URL")]
    service_account_issuer: String,
    /// Audiences of tokens that are for the API [default: the issuer]
    #[arg(long, value_delimiter = ',', value_name = "AUDIENCES")]
    api_audiences: Vec<String>,
    /// Key that signs service account tokens, EC P-256 or RSA [default: one made in the data directory]
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: Option<PathBuf>,
    /// Files of further keys whose service account tokens are good
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
}

/// One issuer of OpenID Connect tokens.
#[derive(clap::Args, Clone, Debug)]
struct Oidc {
    /// Issuer of OpenID Connect tokens
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// Audience its tokens must have
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// Who vouches for the issuer's server [default: the system's authorities]
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// Claim that is the user's name
    #[arg(long, default_value = "sub", value_name = "CLAIM")]
    oidc_username_claim: String,
    /// Prefix of names [default: the issuer and #, none for the claim email; - for none]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    oidc_username_prefix: String,
    /// Claim that lists the user's groups
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CLAIM")]
    oidc_groups_claim: String,
    /// Prefix of groups
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    oidc_groups_prefix: String,
    /// Claims that tokens must have
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "CLAIM=VALUE")]
    oidc_required_claim: Vec<(String, String)>,
    /// Algorithms that tokens may be signed with
    #[arg(long, value_delimiter = ',', default_value = "RS256", value_name = "ALGORITHMS")]
    oidc_signing_algs: Vec<String>,
}

/// Front proxies.
#[derive(clap::Args, Clone, Debug)]
struct RequestHeader {
    /// Authority of front proxies [default: one made in the data directory]
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of front proxies
    #[arg(long, value_delimiter = ',', default_value = "front-proxy-client", value_name = "NAMES")]
    requestheader_allowed_names: Vec<String>,
    /// Headers in which they name users
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-User", value_name = "HEADERS")]
    requestheader_username_headers: Vec<String>,
    /// Headers in which they give UIDs
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Uid", value_name = "HEADERS")]
    requestheader_uid_headers: Vec<String>,
    /// Headers in which they list groups
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Group", value_name = "HEADERS")]
    requestheader_group_headers: Vec<String>,
    /// Prefixes of the headers in which they give what else is known
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Extra-", value_name = "PREFIXES")]
    requestheader_extra_headers_prefix: Vec<String>,
}

impl Oidc {
    fn flags(&self) -> Option<OidcFlags> {
        let (issuer_url, client_id) = self.oidc_issuer_url.clone().zip(self.oidc_client_id.clone())?;
        Some(OidcFlags {
            issuer_url,
            client_id,
            ca_file: self.oidc_ca_file.clone(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.iter().cloned().collect::<BTreeMap<_, _>>(),
            signing_algorithms: self.oidc_signing_algs.clone(),
        })
    }
}

impl RequestHeader {
    fn front_proxy(&self) -> FrontProxy {
        let filled = |list: &[String]| list.iter().filter(|n| !n.is_empty()).cloned().collect();
        FrontProxy {
            allowed_names: filled(&self.requestheader_allowed_names),
            username_headers: filled(&self.requestheader_username_headers),
            uid_headers: filled(&self.requestheader_uid_headers),
            group_headers: filled(&self.requestheader_group_headers),
            extra_prefixes: filled(&self.requestheader_extra_headers_prefix),
        }
    }
}

impl Access {
    fn authentication(&self) -> authn::Settings {
        let webhook = self.authentication_token_webhook_config_file.clone().map(|kubeconfig| WebhookSettings {
            kubeconfig,
            cache_ttl: self.authentication_token_webhook_cache_ttl,
            version: self.authentication_token_webhook_version.clone(),
        });
        authn::Settings {
            front_proxy: self.request_header.front_proxy(),
            anonymous: self.anonymous_auth,
            token_file: self.token_auth_file.clone(),
            webhook,
            oidc: self.oidc.flags(),
            config_file: self.authentication_config.clone(),
        }
    }

    fn authorization(&self) -> authz::Settings {
        authz::Settings {
            modes: self.authorization_mode.clone(),
            webhook_kubeconfig: self.authorization_webhook_config_file.clone(),
            authorized_ttl: self.authorization_webhook_cache_authorized_ttl,
            unauthorized_ttl: self.authorization_webhook_cache_unauthorized_ttl,
            webhook_version: self.authorization_webhook_version.clone(),
            config_file: self.authorization_config.clone(),
        }
    }

    /// Puts what the flags say into a server's configuration.
    pub fn apply(&self, config: &mut apiserver::Config) -> Result<()> {
        config.authentication = self.authentication();
        config.authorization = self.authorization();
        config.issuer.clone_from(&self.service_account_issuer);
        config.api_audiences = match self.api_audiences.as_slice() {
            [] => vec![config.issuer.clone()],
            given => given.to_vec(),
        };
        if let Some(path) = &self.request_header.requestheader_client_ca_file {
            // Beside the server's own: that has issued what the server shows to aggregated servers.
            config.front_proxy_ca_pem = format!("{}\n{}", config.front_proxy_ca_pem.trim_end(), read(path)?);
        }
        Ok(())
    }

    /// The key of service account tokens; the one in `dir`, where none is given.
    pub fn token_key(&self, dir: &std::path::Path) -> Result<pki::ServiceAccountKey> {
        let mut key = match &self.service_account_signing_key_file {
            Some(path) => {
                pki::ServiceAccountKey::from_pem(&read(path)?).with_context(|| format!("{}", path.display()))?
            }
            None => pki::ServiceAccountKey::load_or_create(dir)?,
        };
        for path in &self.service_account_key_file {
            key.also_verify(&read(path)?).with_context(|| format!("{}", path.display()))?;
        }
        Ok(key)
    }
}

fn read(path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
