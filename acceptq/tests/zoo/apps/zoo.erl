%% Servers in Erlang: zoo MODE PORT
-module(zoo).
-export([main/1]).

main([Mode, Port]) ->
    {ok, L} = gen_tcp:listen(list_to_integer(Port), [binary, {ip, {127, 0, 0, 1}}, {active, false}, {backlog, 128}]),
    case Mode of
        "never" -> timer:sleep(infinity);
        _ -> loop(Mode, L)
    end.

loop(Mode, L) ->
    {ok, S} = gen_tcp:accept(L),
    case Mode of
        "hang" -> put(S, kept);
        _ ->
            P = spawn(fun() -> receive go -> ok end, gen_tcp:recv(S, 0), gen_tcp:send(S, <<"ok\n">>), gen_tcp:close(S) end),
            gen_tcp:controlling_process(S, P),
            P ! go
    end,
    loop(Mode, L).
