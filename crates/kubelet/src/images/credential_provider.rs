//! Credential provider plugins (KEP-2133): programs that are asked for the credentials of an image.
//!
//! A program gets a `CredentialProviderRequest` on stdin and prints a `CredentialProviderResponse`. Answers are kept
//! as long as they say: for all pods, or for those of one service account or token where the program is told of them.

use super::keyring::{Entry, full_name, matches};
use super::pulls::Source;
use super::service_account::{Identity, TokenAttributes};
use crate::tokens::TokenManager;
use api::k8s::core::v1::Pod;
use cri::AuthConfig;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a program may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes that are read of its answer.
const MAX_ANSWER: u64 = 1 << 20;
/// Most answers that are kept.
const MAX_ENTRIES: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    name: String,
    match_images: Vec<String>,
    #[serde(with = "crate::configuration::go_duration", default)]
    default_cache_duration: Duration,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    #[serde(default)]
    token_attributes: Option<TokenAttributes>,
}

#[derive(Clone, Debug, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    kind: String,
    cache_key_type: String,
    #[serde(default, with = "crate::configuration::go_duration::optional")]
    cache_duration: Option<Duration>,
    #[serde(default)]
    auth: BTreeMap<String, Login>,
}

#[derive(Debug, Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// All plugins of the node.
pub struct CredentialProviders {
    providers: Vec<Provider>,
    programs: PathBuf,
    client: kube::Client,
    tokens: TokenManager,
    kept: Mutex<Kept>,
}

/// Answers by plugin, key and identity, with the end of their time.
type Kept = HashMap<(String, String, String), (Vec<Entry>, Instant)>;

impl CredentialProviders {
    /// Reads a `CredentialProviderConfig`; what is wrong with it is logged, and the plugins are left out.
    pub fn new(config: Option<&(PathBuf, PathBuf)>, client: kube::Client) -> Self {
        let tokens = TokenManager::new(client.clone());
        let mut own = Self { providers: Vec::new(), programs: PathBuf::new(), client, tokens, kept: Mutex::default() };
        let Some((file, programs)) = config else { return own };
        let read = || -> Result<Config, String> {
            let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
            let config: Config = serde_saphyr::from_str(&text).map_err(|e| e.to_string())?;
            config.providers.iter().try_for_each(|p| p.validate(programs))?;
            Ok(config)
        };
        match read() {
            Ok(config) => (own.providers, own.programs) = (config.providers, programs.clone()),
            Err(why) => tracing::error!(file = %file.display(), why, "no credential provider plugins are used"),
        }
        own
    }

    /// Forgets a pod's tokens.
    pub fn release(&self, pod_uid: &str) {
        self.tokens.release(pod_uid);
    }

    /// Credentials for an image of a pod from every plugin that is for it.
    pub async fn get(&self, pod: &Pod, image: &str) -> Vec<Entry> {
        let full = full_name(image);
        let mut out = Vec::new();
        for provider in self.providers.iter().filter(|p| p.match_images.iter().any(|m| matches(m, &full))) {
            match self.ask(provider, pod, &full).await {
                Ok(entries) => out.extend(entries),
                Err(why) => {
                    let name = &provider.name;
                    tracing::error!(
                        provider = name,
                        image,
                        why,
                        "failed getting credentials from external registry credential provider"
                    );
                }
            }
        }
        out
    }

    async fn ask(&self, provider: &Provider, pod: &Pod, image: &str) -> Result<Vec<Entry>, String> {
        let identity = match &provider.token_attributes {
            None => Identity::default(),
            Some(attributes) => match attributes.identity(&self.client, &self.tokens, pod).await? {
                Some(identity) => identity,
                None => return Ok(Vec::new()),
            },
        };
        let registry = image.split('/').next().unwrap_or(image);
        let now = Instant::now();
        for key in [image, registry, ""] {
            let kept = self.kept.lock().get(&(provider.name.clone(), key.to_owned(), identity.key.clone())).cloned();
            if let Some((entries, _)) = kept.filter(|(_, until)| *until > now) {
                return Ok(identity.sign(entries));
            }
        }
        let response = provider.run(&self.programs, image, &identity).await?;
        let key = match response.cache_key_type.as_str() {
            "Image" => image,
            "Registry" => registry,
            "Global" => "",
            other => return Err(format!("credential provider plugin did not return a valid cacheKeyType: {other:?}")),
        };
        let of = |(pattern, login): (String, Login)| Entry {
            pattern,
            auth: AuthConfig { username: login.username, password: login.password, ..AuthConfig::default() },
            source: Source::Node,
        };
        let entries: Vec<Entry> = response.auth.into_iter().map(of).collect();
        let time = response.cache_duration.unwrap_or(provider.default_cache_duration);
        if !time.is_zero() {
            let mut kept = self.kept.lock();
            if kept.len() >= MAX_ENTRIES {
                kept.retain(|_, (_, until)| *until > now);
            }
            if kept.len() < MAX_ENTRIES {
                kept.insert(
                    (provider.name.clone(), key.to_owned(), identity.key.clone()),
                    (entries.clone(), now + time),
                );
            }
        }
        Ok(identity.sign(entries))
    }
}

impl Provider {
    fn validate(&self, programs: &Path) -> Result<(), String> {
        let name = &self.name;
        if name.is_empty() || name.contains('/') || [".", ".."].contains(&name.as_str()) {
            return Err(format!("{name:?} is no name of a program"));
        }
        if !self.api_version.starts_with("credentialprovider.kubelet.k8s.io/") {
            return Err(format!("apiVersion {:?} is not supported", self.api_version));
        }
        if let Some(attributes) = &self.token_attributes {
            if self.api_version != "credentialprovider.kubelet.k8s.io/v1" {
                return Err(format!(
                    "provider {name}: tokenAttributes is only supported for credentialprovider.kubelet.k8s.io/v1"
                ));
            }
            attributes.validate().map_err(|why| format!("provider {name}: {why}"))?;
        }
        let path = programs.join(name);
        path.is_file().then_some(()).ok_or_else(|| format!("plugin binary executable {} did not exist", path.display()))
    }

    async fn run(&self, programs: &Path, image: &str, identity: &Identity) -> Result<Response, String> {
        let mut command = tokio::process::Command::new(programs.join(&self.name));
        command.args(&self.args).envs(self.env.iter().map(|v| (&v.name, &v.value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let mut request = json!({"kind": "CredentialProviderRequest", "apiVersion": self.api_version, "image": image});
        if !identity.token.is_empty() {
            request["serviceAccountToken"] = identity.token.as_str().into();
        }
        if !identity.annotations.is_empty() {
            request["serviceAccountAnnotations"] = json!(identity.annotations);
        }
        let talk = async {
            if let Some(mut stdin) = child.stdin.take() {
                // A program that does not read what it is asked may still answer.
                let _ = stdin.write_all(request.to_string().as_bytes()).await;
            }
            let mut text = Vec::new();
            let stdout = child.stdout.take().ok_or("no stdout")?;
            stdout.take(MAX_ANSWER).read_to_end(&mut text).await.map_err(|e| e.to_string())?;
            let status = child.wait().await.map_err(|e| e.to_string())?;
            if !status.success() {
                return Err(format!("error execing credential provider plugin {}: {status}", self.name));
            }
            let response: Response = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
            match response.kind.as_str() {
                "CredentialProviderResponse" => Ok(response),
                kind => Err(format!("failed to get kind from response: {kind:?}")),
            }
        };
        let late = || format!("credential provider plugin {} did not answer within {TIMEOUT:?}", self.name);
        tokio::time::timeout(TIMEOUT, talk).await.map_err(|_| late())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    fn pod(uid: &str) -> Pod {
        let spec = json!({"serviceAccountName": "sa", "containers": []});
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": uid}, "spec": spec}))
            .expect("pod")
    }

    /// An API server with one service account, which counts the tokens it gives.
    fn client(tokens: Arc<Mutex<Vec<String>>>) -> kube::Client {
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let tokens = tokens.clone();
            async move {
                let path = request.uri().path().to_owned();
                let answer = if path.ends_with("/token") {
                    tokens.lock().push(path);
                    let token = format!("token-{}", tokens.lock().len());
                    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {"audiences": []},
                        "status": {"token": token, "expirationTimestamp": "2126-01-01T00:00:00Z"}})
                } else {
                    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa", "uid": "u", "annotations": {"k": "v", "x": "y"}}})
                };
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        });
        kube::Client::new(service, "default")
    }

    #[tokio::test]
    async fn a_program_is_told_of_service_accounts() {
        let dir = tempfile::tempdir().expect("tempdir");
        let program = dir.path().join("p");
        let answer = r#"{"kind":"CredentialProviderResponse","apiVersion":"x","cacheKeyType":"Global","cacheDuration":"1h","auth":{"*":{"username":"u","password":"p"}}}"#;
        std::fs::write(
            &program,
            format!("#!/bin/sh\ncat >> {}/asked\necho >> {0}/asked\necho '{answer}'\n", dir.path().display()),
        )
        .expect("write");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("chmod");
        let config = dir.path().join("config.yaml");
        let ask = async |cache: &str| {
            let _ = std::fs::remove_file(dir.path().join("asked"));
            let text = format!(
                "kind: CredentialProviderConfig\nproviders:\n- name: p\n  matchImages: ['reg.io']\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  tokenAttributes: {{serviceAccountTokenAudience: aud, cacheType: {cache}, requireServiceAccount: true, requiredServiceAccountAnnotationKeys: [k]}}\n"
            );
            std::fs::write(&config, text).expect("write");
            let tokens = Arc::default();
            let providers =
                CredentialProviders::new(Some(&(config.clone(), dir.path().to_owned())), client(Arc::clone(&tokens)));
            for uid in ["1", "2", "1"] {
                assert_eq!(providers.get(&pod(uid), "reg.io/x").await.len(), 1);
            }
            assert_eq!(*tokens.lock(), ["/api/v1/namespaces/n/serviceaccounts/sa/token"; 2], "one for each pod");
            let asked = std::fs::read_to_string(dir.path().join("asked")).expect("asked");
            asked.lines().map(|l| serde_json::from_str(l).expect("json")).collect::<Vec<serde_json::Value>>()
        };
        let asked = ask("ServiceAccount").await;
        assert_eq!(asked.len(), 1, "kept for the service account");
        assert_eq!(asked[0]["serviceAccountToken"], "token-1");
        assert_eq!(asked[0]["serviceAccountAnnotations"], json!({"k": "v"}));
        assert_eq!(ask("Token").await.len(), 2, "kept for each token");
        assert!(
            CredentialProviders::new(Some(&(dir.path().join("none"), dir.path().to_owned())), client(Arc::default()))
                .providers
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_program_is_asked_once() {
        let asked_tokens: Arc<Mutex<Vec<String>>> = Arc::default();
        let dir = tempfile::tempdir().expect("tempdir");
        let program = dir.path().join("p");
        let script = format!(
            "#!/bin/sh\ncat >> {}/asked\necho '{{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"x\",\"cacheKeyType\":\"Registry\",\"cacheDuration\":\"1h\",\"auth\":{{\"*.reg.io\":{{\"username\":\"'$USER_NAME'\",\"password\":\"p\"}}}}}}'\n",
            dir.path().display()
        );
        std::fs::write(&program, script).expect("write");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("chmod");
        let config = dir.path().join("config.yaml");
        let text = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: p\n  matchImages: ['*.reg.io']\n  defaultCacheDuration: 10m\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  env: [{name: USER_NAME, value: me}]\n";
        std::fs::write(&config, text).expect("write");
        let providers = CredentialProviders::new(Some(&(config, dir.path().to_owned())), client(asked_tokens.clone()));
        for image in ["a.reg.io/x:1", "a.reg.io/y:1"] {
            let got = providers.get(&pod("1"), image).await;
            assert_eq!(got.first().map(|e| e.auth.username.as_str()), Some("me"), "{image}");
        }
        assert!(providers.get(&pod("1"), "other.io/x").await.is_empty());
        let asked = std::fs::read_to_string(dir.path().join("asked")).expect("asked");
        assert_eq!(asked.matches("CredentialProviderRequest").count(), 1, "the second is kept: {asked}");
        assert!(asked_tokens.lock().is_empty() && !asked.contains("serviceAccount"));
    }
}
