//! `quorate token`: what lets a machine become a node.
//!
//! Invariant: a token is printed once, alone on a line of its own, and kept nowhere.

use std::time::Duration;

use quorate_proto::{
    refusal::Refusal,
    request::{Answer, Request},
};

use crate::{
    args::Token,
    client::{Client, unexpected},
    failure::Failure,
    output::Aligned,
    session::Session,
};

pub(crate) async fn run(session: &mut Session<'_>, arguments: Token) -> Result<(), Failure> {
    match arguments {
        Token::Create { ttl, uses } => {
            let token = create(&session.client, ttl, uses).await?;
            writeln!(session.console.out, "{token}")?;
            writeln!(session.console.err, "On the machine that is to join:  quorate join <the token above>")?;
            Ok(())
        }
        Token::List => list(session).await,
        Token::Revoke { id } => {
            let request = Request::RevokeToken { request: session.client.request_id(), id: id.clone() };
            match session.client.ask(request.clone()).await? {
                Answer::Done => writeln!(session.console.out, "token/{id} revoked")?,
                answer => return Err(unexpected(&request, &answer).into()),
            }
            Ok(())
        }
    }
}

/// Makes a token.
pub(crate) async fn create(client: &Client, lifetime: Duration, uses: u32) -> Result<String, Refusal> {
    let request = client.request_id();
    let request = Request::CreateToken { request, lifetime_seconds: lifetime.as_secs(), uses };
    match client.ask(request.clone()).await? {
        Answer::Token(token) => Ok(token),
        answer => Err(unexpected(&request, &answer)),
    }
}

async fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let tokens = match session.client.ask(Request::ListTokens).await? {
        Answer::Tokens(tokens) => tokens,
        answer => return Err(unexpected(&Request::ListTokens, &answer).into()),
    };
    if tokens.is_empty() {
        writeln!(session.console.err, "No tokens found")?;
        return Ok(());
    }
    let mut rows = vec![["ID", "USES LEFT", "EXPIRES"].map(str::to_owned).to_vec()];
    rows.extend(tokens.into_iter().map(|token| vec![token.id, token.uses_left.to_string(), token.expires]));
    Aligned::default().print(&rows, session.console.out)?;
    Ok(())
}
