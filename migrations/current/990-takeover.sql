-- Taking over from the Python version, second half.
do $$
begin
  if to_regnamespace('tickets_takeover') is not null then
    perform tickets_takeover.fill();
  end if;
end
$$;
