//! Two real servers of ClickHouse and the ZooKeeper that coordinates them.

use std::net::SocketAddr;

use super::{ClickHouse, Engine, Forwarder, ZooKeeper, free_address, wait_for};

/// The engine whose wheel holds a whole server.
const ENGINE: &str = "25.8";

pub const COLUMNS: &str = "client_time DateTime('UTC'), device_id String, device_os LowCardinality(String), \
                           session String, sequence Int64, event LowCardinality(String), param_int Int64, \
                           param_str String, ip String, server_time DateTime('UTC')";

/// The servers are replicas of each other's tables, and shards of the cluster `shards`.
pub struct Cluster {
    pub zookeeper: ZooKeeper,
    pub servers: [ClickHouse; 2],
    /// Each server's way to ZooKeeper.
    pub ways: [Forwarder; 2],
}

impl Cluster {
    pub fn start() -> Self {
        let zookeeper = ZooKeeper::start();
        let ways = [(); 2].map(|()| Forwarder::new(&format!("http://{}", zookeeper.address()), "", ""));
        let tcp = [free_address(), free_address()];
        let start = |server: usize| {
            let configuration = configuration(server, ways[server].address(), tcp);
            ClickHouse::start_engine(Engine::named(ENGINE), Some(&configuration))
        };
        let servers = [start(0), start(1)];
        Self { zookeeper, servers, ways }
    }

    /// A database on both servers, whose table `events` has a replica on each.
    pub fn database(&self) -> String {
        let database = self.servers[0].database();
        self.servers[1].query(&format!("CREATE DATABASE {database}"));
        self.on_both(&format!(
            "CREATE TABLE {database}.events ({COLUMNS}) \
             ENGINE = ReplicatedMergeTree('/tables/{{database}}/events', '{{replica}}') \
             PARTITION BY toYYYYMM(server_time) ORDER BY (event, server_time, device_id)"
        ));
        database
    }

    pub fn on_both(&self, statement: &str) {
        self.servers.iter().for_each(|server| drop(server.query(statement)));
    }

    /// The value of `--clickhouse-url` for both.
    pub fn urls(&self) -> String {
        format!("{},{}", self.servers[0].url(), self.servers[1].url())
    }

    /// Lets each server look at once which of its parts Keeper has. One whose fate it does not know
    /// (`UNKNOWN_STATUS_OF_INSERT`) it would show for some five minutes more, and then drop.
    pub fn verify_parts(&self, table: &str) {
        for server in &self.servers {
            let restart = || server.try_query(&format!("SYSTEM RESTART REPLICA {table}"));
            wait_for(|| format!("{table} can't be started again: {:?}", restart()), || restart().ok());
        }
    }

    /// Waits until each replica of a table has what any of them has.
    pub fn sync(&self, table: &str) {
        for server in &self.servers {
            // A session that has just ended is an error.
            let sync = || server.try_query(&format!("SYSTEM SYNC REPLICA {table}"));
            wait_for(|| format!("{table} is not in sync: {:?}", sync()), || sync().ok());
        }
    }
}

fn configuration(server: usize, zookeeper: SocketAddr, tcp: [SocketAddr; 2]) -> String {
    let shards = tcp.map(|address| {
        let port = address.port();
        format!("<shard><replica><host>127.0.0.1</host><port>{port}</port></replica></shard>")
    });
    format!(
        "<clickhouse>
           <tcp_port>{}</tcp_port>
           <interserver_http_host>127.0.0.1</interserver_http_host>
           <interserver_http_port>{}</interserver_http_port>
           <macros><replica>r{server}</replica></macros>
           <zookeeper>
             <node><host>127.0.0.1</host><port>{}</port></node>
             <session_timeout_ms>3000</session_timeout_ms>
             <operation_timeout_ms>2000</operation_timeout_ms>
           </zookeeper>
           <remote_servers><shards>{}</shards></remote_servers>
         </clickhouse>",
        tcp[server].port(),
        free_address().port(),
        zookeeper.port(),
        shards.concat()
    )
}
