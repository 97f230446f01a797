%% A RabbitMQ node of a test's own: it registers nowhere, answers questions on its standard input, and ends when that
%% does, so that none is left behind by a test that was killed.
%%
%% A question is one line, an Erlang expression with its full stop; the answer is one line, "> " and the value.
-module(rabbitmq_node).

-export([start/0]).
-export([add_vhost/2, remove_vhost/1, cut/1, close/2, depths/1, alarm/1, settle/0]).

%% Distribution wants a register of node names. This one knows nobody, and is used with `-epmd_module`.
-export([start_link/0, register_node/2, register_node/3, names/1, address_please/3, port_please/2, port_please/3]).
-export([listen_port_please/2]).

start() ->
    {ok, _} = net_kernel:start([rabbit@localhost, shortnames]),
    ok = rabbit:boot(),
    ok = rabbit:await_startup(node()),
    answer(ready),
    spawn(fun() -> listen() end).

listen() ->
    case io:get_line(standard_io, "") of
        Line when is_list(Line) ->
            answer(catch evaluate(Line)),
            listen();
        _ended ->
            {ok, Folder} = init:get_argument(own_folder),
            remove(hd(Folder), 20),
            halt(0, [{flush, false}])
    end.

answer(Value) ->
    io:format(standard_io, "~n> ~0tp~n", [Value]).

evaluate(Line) ->
    {ok, Tokens, _} = erl_scan:string(Line),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, Value, _} = erl_eval:exprs(Expressions, []),
    Value.

%% What is still running writes new files meanwhile.
remove(_, 0) -> ok;
remove(Folder, Attempts) ->
    case file:del_dir_r(Folder) of
        ok -> ok;
        _ -> remove(Folder, Attempts - 1)
    end.

%% A vhost in which the user may do everything.
add_vhost(Name, User) ->
    ok = rabbit_vhost:add(Name, User),
    ok = rabbit_auth_backend_internal:set_permissions(User, Name, <<".*">>, <<".*">>, <<".*">>, User).

remove_vhost(Name) ->
    rabbit_vhost:delete(Name, <<"tests">>).

%% Writes down which quorum queues there are. The node does so after a moment; a queue that it forgets because it was
%% killed before never gets a leader again.
settle() ->
    lists:foreach(fun dets:sync/1, dets:all()).

%% Breaks the connections to a vhost without a word.
cut(VHost) ->
    length([exit(Connection, kill) || Connection <- connections(VHost)]).

%% Closes them as an operator does: CONNECTION_FORCED and the reason.
close(VHost, Reason) ->
    length([rabbit_networking:close_connection(Connection, Reason) || Connection <- connections(VHost)]).

connections(VHost) ->
    IsOurs = fun(Connection) -> catch rabbit_reader:info(Connection, [vhost]) =:= [{vhost, VHost}] end,
    [Connection || Connection <- rabbit_networking:connections(), IsOurs(Connection) =:= true].

%% The queues of a vhost: name, how many messages are ready, and how many are unacknowledged.
depths(VHost) ->
    %% One that is being deleted answers no more.
    lists:sort([Depth || Queue <- rabbit_amqqueue:list(VHost), {_, _, _} = Depth <- [catch depth(Queue)]]).

depth(Queue) ->
    {resource, _, queue, Name} = amqqueue:get_name(Queue),
    case amqqueue:get_type(Queue) of
        rabbit_quorum_queue ->
            %% Its figures in `info` are seconds old.
            State = fun(Fifo) -> {rabbit_fifo:query_messages_ready(Fifo), rabbit_fifo:query_messages_checked_out(Fifo)} end,
            {Ready, Unacknowledged} = query(amqqueue:get_pid(Queue), State, 10),
            {Name, Ready, Unacknowledged};
        _classic ->
            [{_, Ready}, {_, Unacknowledged}] =
                rabbit_amqqueue:info(Queue, [messages_ready, messages_unacknowledged]),
            {Name, Ready, Unacknowledged}
    end.

%% Right after a start it has no leader yet.
query(Queue, State, Attempts) when Attempts > 0 ->
    case catch ra:consistent_query(Queue, State, 1000) of
        {ok, Value, _} -> Value;
        _ -> timer:sleep(50), query(Queue, State, Attempts - 1)
    end.

%% As if memory were low: the node reads nothing more from connections that publish.
alarm(true) ->
    ok = rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}),
    %% Who asks after this has been told: the alarm goes from one process to the next.
    [_ | _] = rabbit_alarm:get_alarms(),
    [catch rabbit_reader:info(Connection, [state]) || Connection <- rabbit_networking:connections()],
    ok;
alarm(false) -> rabbit_alarm:clear_alarm({resource_limit, memory, node()}).

start_link() -> ignore.
register_node(_, _) -> {ok, 1}.
register_node(_, _, _) -> {ok, 1}.
names(_) -> {ok, []}.
address_please(_, Host, Family) -> inet:getaddr(Host, Family).
port_please(_, _) -> noport.
port_please(_, _, _) -> noport.
listen_port_please(_, _) -> {ok, 0}.
