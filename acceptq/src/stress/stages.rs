//! The stages of the stress test.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Behavior, Client, Endpoint, Outcome, Request};
use super::freeze::SignalGuard;
use super::observer::{Location, Observer, Queue};
use super::verdict::{ClientCounts, Facts, Limit};

/// Interval between samples.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The flood has settled when nothing has changed for this long.
const SETTLE_TIME: Duration = Duration::from_millis(400);
/// An accepted connection that is not closed within this time is held.
const HOLD_TIME: Duration = Duration::from_millis(4);
/// `HOLD_TIME` if the server's side of the connection is not visible.
const HOLD_TIME_UNSEEN: Duration = Duration::from_millis(100);
/// The maximum interval between samples of a connection that is not accepted.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// The maximum number of bursts.
pub(super) const BURSTS: usize = 10;
/// The observation period of the doctor.
const WATCH_TIME: Duration = Duration::from_secs(1);
/// The time limit for draining the queue while connections are accepted.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// After this time "hold" opens no more clients, "flood" no more bursts, and "free" does not wait for the queue to drain.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// The connections of the last stage, and the interval between them.
const NEW_CONNECTIONS: usize = 5;
const NEW_CONNECTION_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) hold: usize,
    pub(crate) flood: usize,
    pub(crate) request: Request,
    pub(crate) patience: Duration,
    pub(crate) freeze: bool,
}

/// A stress test in progress.
#[derive(Debug)]
pub(crate) struct Scenario<'a> {
    config: &'a Config,
    observer: &'a Observer,
    endpoint: &'a Endpoint,
    behavior: Behavior,
    began: Instant,
    held: Vec<Client>,
    /// The clients of the flood that are still connected and unanswered.
    waiting: Vec<Client>,
    pub(crate) facts: Facts,
}

impl<'a> Scenario<'a> {
    pub(crate) fn new(config: &'a Config, observer: &'a Observer, endpoint: &'a Endpoint) -> Self {
        let (held, waiting, facts) = (Vec::new(), Vec::new(), Facts::default());
        let (behavior, began) = (Behavior::Silent, Instant::now());
        Self { config, observer, endpoint, behavior, began, held, waiting, facts }
    }

    /// Determines how the server treats a client below its limit.
    pub(crate) fn first(&mut self) -> io::Result<()> {
        let mut client = Client::start(self.endpoint)?;
        let began = Instant::now();
        let mut behavior = None;
        while behavior.is_none() && began.elapsed() < self.config.patience {
            thread::sleep(POLL_INTERVAL);
            client.step(Some(&self.config.request))?;
            behavior = client.behavior();
        }
        let is_accepted =
            locations(self.observer, std::slice::from_ref(&client))? == Some(vec![Location::Server]);
        self.facts.behavior = behavior.or((is_accepted && !client.is_closed()).then_some(Behavior::Silent));
        self.behavior = self.facts.behavior.unwrap_or(Behavior::Silent);
        if self.facts.behavior.is_none() {
            self.facts.after = self.observer.examine(WATCH_TIME)?;
            return Ok(());
        }
        self.disconnect(std::slice::from_mut(&mut client)).map(drop)
    }

    /// Fills the server up to its limit or up to `hold` connections.
    pub(crate) fn hold(&mut self) -> io::Result<()> {
        // A server that closes by itself cannot be filled.
        while self.behavior != Behavior::GreetsAndCloses
            && self.held.len() < self.config.hold
            && !self.is_past_time_limit()
        {
            let mut client = Client::start(self.endpoint)?;
            match self.is_held(&mut client)? {
                Outcome::Answered => self.held.push(client),
                Outcome::Refused => self.facts.limit = Limit::Refuses,
                Outcome::Pending => {
                    self.facts.limit = Limit::Waits;
                    // It is the first one to wait.
                    self.waiting.push(client);
                }
            }
            if self.facts.limit != Limit::NotMet {
                break;
            }
        }
        self.held.iter_mut().try_for_each(|client| client.step(None))?;
        let before = self.held.len();
        self.held.retain(|client| !client.is_closed());
        if self.held.len() < before && self.facts.limit == Limit::NotMet {
            self.facts.limit = Limit::Refuses;
        }
        self.facts.held = self.held.len();
        Ok(())
    }

    /// Waits until the server holds or refuses a connection. `Answered` means held.
    fn is_held(&self, client: &mut Client) -> io::Result<Outcome> {
        let began = Instant::now();
        // Each held connection makes a sample costlier.
        let mut pause = HOLD_TIME / 4;
        loop {
            client.step(None)?;
            if client.is_closed() {
                return Ok(Outcome::Refused);
            }
            match locations(self.observer, std::slice::from_ref(client))? {
                Some(locations) => {
                    client.set_accepted(locations == [Location::Server]);
                    if client.accepted_for(HOLD_TIME) {
                        return Ok(Outcome::Answered);
                    }
                    pause =
                        if locations == [Location::Server] { HOLD_TIME } else { (pause * 2).min(PAUSE_MAX) };
                }
                // Without the kernel's view, data or the absence of a close shows that it was accepted.
                None if self.behavior == Behavior::Greets => match client.outcome(self.behavior) {
                    Outcome::Answered => return Ok(Outcome::Answered),
                    Outcome::Refused | Outcome::Pending => {}
                },
                None if client.is_connected() && began.elapsed() > HOLD_TIME_UNSEEN => {
                    return Ok(Outcome::Answered);
                }
                None => {}
            }
            if began.elapsed() > self.config.patience {
                return Ok(Outcome::Pending);
            }
            thread::sleep(pause);
        }
    }

    /// Opens many connections at once, then closes half of them.
    ///
    /// A fast server may refuse them one by one, so the burst is repeated until one is not refused. With
    /// `--freeze` one wakeup reports all of them, and one burst is enough.
    pub(crate) fn flood(&mut self) -> io::Result<()> {
        let guard = if self.config.freeze { Some(SignalGuard::new()?) } else { None };
        let bursts = if self.config.freeze { 1 } else { BURSTS };
        for _ in 0..bursts {
            self.burst(guard.as_ref())?;
            self.settle()?;
            let waiting = self.queued_of(&self.waiting)?;
            let all = self.waiting.len();
            let refused = self
                .waiting
                .iter()
                .filter(|client| client.outcome(self.behavior) == Outcome::Refused)
                .count();
            let flood = &mut self.facts.flood;
            flood.connected += all;
            flood.refused += refused;
            flood.answered += all.saturating_sub(refused + waiting);
            flood.unanswered += waiting;
            self.facts.bursts += 1;
            if waiting > 0 || refused < all || self.is_past_time_limit() {
                break;
            }
            self.waiting.clear();
        }
        // Every other client disconnects, whatever its outcome.
        let (all, mut number) = (self.waiting.len(), 0);
        self.waiting.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        self.facts.quit = all - self.waiting.len();
        Ok(())
    }

    fn burst(&mut self, guard: Option<&SignalGuard>) -> io::Result<()> {
        let (count, endpoint) = (self.flood_size()?, self.endpoint);
        let mut clients = (0..count).map(|_| Client::prepare(endpoint)).collect::<io::Result<Vec<_>>>()?;
        let mut connect = || clients.iter_mut().try_for_each(Client::connect);
        match guard {
            Some(guard) => guard.run_stopped(&self.observer.pids()?, connect)?,
            None => connect()?,
        }
        self.waiting.extend(clients);
        Ok(())
    }

    /// Returns the size of a burst that leaves room in the queue for the last stage.
    fn flood_size(&self) -> io::Result<usize> {
        let Some(Queue { queued, capacity }) = self.observer.queue()? else { return Ok(self.config.flood) };
        let room = (capacity.saturating_sub(queued) as usize).saturating_sub(NEW_CONNECTIONS);
        Ok(self.config.flood.min(room.max(1)))
    }

    /// Waits until the flood has settled.
    fn settle(&mut self) -> io::Result<()> {
        let (began, mut changed, mut last) = (Instant::now(), Instant::now(), None);
        while changed.elapsed() < SETTLE_TIME && began.elapsed() < self.config.patience.max(2 * SETTLE_TIME) {
            thread::sleep(POLL_INTERVAL);
            self.update_accepted()?;
            for (number, client) in self.waiting.iter_mut().enumerate() {
                // The clients that will disconnect send no request.
                client.step((number % 2 == 1).then_some(&self.config.request))?;
            }
            let settled = self
                .waiting
                .iter()
                .filter(|client| client.outcome(self.behavior) != Outcome::Pending)
                .count();
            let queue = self.observer.queue()?;
            if settled == self.waiting.len() && queue.is_some_and(|queue| queue.queued == 0) {
                break;
            }
            let now = Some((settled, queue));
            if now != last {
                (last, changed) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Runs the doctor on the server at its limit.
    pub(crate) fn watch(&mut self) -> io::Result<()> {
        self.facts.full = self.observer.examine(WATCH_TIME)?;
        Ok(())
    }

    /// Closes one held connection or, if the queue does not drain, all of them.
    pub(crate) fn free(&mut self) -> io::Result<()> {
        self.facts.stayed.connected = self.waiting.len();
        let any_waited = self.facts.flood.unanswered > 0;
        for batch in [1, usize::MAX] {
            let count = batch.min(self.held.len());
            let mut leaving = self.held.split_off(self.held.len() - count);
            self.facts.freed += self.disconnect(&mut leaving)?;
            if self.drain()? {
                self.facts.resumed_with = any_waited.then_some(self.facts.freed);
                break;
            }
            if self.held.is_empty() {
                break;
            }
        }
        self.facts.stayed.unanswered = self.waiting.len();
        self.facts.left_behind = self.observer.queue()?.map(|queue| queue.queued);
        Ok(())
    }

    /// Waits until the queue is empty and every client has an outcome, as long as anything changes.
    fn drain(&mut self) -> io::Result<bool> {
        let (began, mut changed, mut last) = (Instant::now(), Instant::now(), None);
        loop {
            self.close_answered()?;
            let queue = self.observer.queue()?;
            if self.waiting.is_empty() && queue.is_none_or(|queue| queue.queued == 0) {
                self.facts.stalled = false;
                return Ok(true);
            }
            let now = Some((self.waiting.len(), queue));
            if now != last {
                (last, changed) = (now, Instant::now());
            }
            self.facts.stalled = changed.elapsed() >= self.config.patience;
            if self.facts.stalled || began.elapsed() > DRAIN_TIMEOUT || self.is_past_time_limit() {
                return Ok(false);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Counts and closes the clients that have an outcome, which frees capacity.
    fn close_answered(&mut self) -> io::Result<()> {
        self.update_accepted()?;
        self.waiting.iter_mut().try_for_each(|client| client.step(Some(&self.config.request)))?;
        let (behavior, stayed) = (self.behavior, &mut self.facts.stayed);
        self.waiting.retain(|client| match client.outcome(behavior) {
            Outcome::Pending => true,
            Outcome::Answered => {
                stayed.answered += 1;
                false
            }
            Outcome::Refused => {
                stayed.refused += 1;
                false
            }
        });
        Ok(())
    }

    /// Opens a few new connections below the limit.
    pub(crate) fn new_connections(&mut self) -> io::Result<()> {
        let mut counts = ClientCounts { connected: NEW_CONNECTIONS, ..ClientCounts::default() };
        // The rest of the flood stays connected and is not counted again.
        let stayed = std::mem::take(&mut self.waiting);
        let before = self.facts.stayed;
        self.facts.stayed = ClientCounts::default();
        let (began, mut connected) = (Instant::now(), 0);
        let mut last = Instant::now();
        while began.elapsed() < NEW_CONNECTION_INTERVAL * 5 || last.elapsed() < self.config.patience {
            if connected < NEW_CONNECTIONS && (connected == 0 || last.elapsed() >= NEW_CONNECTION_INTERVAL) {
                self.waiting.push(Client::start(self.endpoint)?);
                (connected, last) = (connected + 1, Instant::now());
            }
            thread::sleep(POLL_INTERVAL);
            self.close_answered()?;
            if connected == NEW_CONNECTIONS && self.waiting.is_empty() {
                break;
            }
        }
        (counts.answered, counts.refused) = (self.facts.stayed.answered, self.facts.stayed.refused);
        counts.unanswered = self.waiting.len();
        self.facts.stayed = before;
        self.facts.new_connections = counts;
        // The remaining clients are part of the diagnosis.
        self.facts.after = self.observer.examine(WATCH_TIME)?;
        drop(stayed);
        Ok(())
    }

    /// Sends FINs and waits until the server closes. Returns how many connections it closed.
    fn disconnect(&self, clients: &mut [Client]) -> io::Result<usize> {
        clients.iter().for_each(Client::shutdown_write);
        let began = Instant::now();
        while !clients.iter().all(Client::is_closed) && began.elapsed() < self.config.patience {
            thread::sleep(POLL_INTERVAL / 5);
            clients.iter_mut().try_for_each(|client| client.step(None))?;
        }
        Ok(clients.iter().filter(|client| client.is_closed()).count())
    }

    fn is_past_time_limit(&self) -> bool {
        self.began.elapsed() > TIME_LIMIT
    }

    /// Records which clients are accepted, if the server is silent: otherwise its data shows that.
    fn update_accepted(&mut self) -> io::Result<()> {
        if self.behavior != Behavior::Silent {
            return Ok(());
        }
        let locations = locations(self.observer, &self.waiting)?.unwrap_or_default();
        for (client, location) in self.waiting.iter_mut().zip(locations) {
            client.set_accepted(location == Location::Server);
        }
        Ok(())
    }

    /// Returns how many clients are queued or, if that is not visible, how many are unanswered.
    fn queued_of(&self, clients: &[Client]) -> io::Result<usize> {
        let unanswered = |client: &&Client| client.outcome(self.behavior) == Outcome::Pending;
        Ok(match locations(self.observer, clients)? {
            Some(locations) => {
                let located = clients.iter().zip(locations);
                located
                    .filter(|(client, location)| unanswered(client) && *location != Location::Server)
                    .count()
            }
            None => clients.iter().filter(unanswered).count(),
        })
    }
}

fn locations(observer: &Observer, clients: &[Client]) -> io::Result<Option<Vec<Location>>> {
    let ids: Vec<_> = clients.iter().map(Client::id).collect();
    observer.locations(&ids)
}
